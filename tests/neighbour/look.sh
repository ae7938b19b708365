#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What a user may try on a container of anybody's: STORE PROGRAM PORT. It prints a line
# for each thing that succeeded; on the user's own container, all of them.
store=$1 program=$2 port=$3
monitor=$(sed -n 's/^PPid:\t//p' "/proc/$program/status")
[ -n "$monitor" ] || exit 1

try() {
	what=$1
	shift
	"$@" > /dev/null 2>&1 && echo "$what"
}

try 'list the store' ls "$store"
try 'read the images' cat "$store/index.json"
try 'write into the store' touch "$store/cache/neighbour"
# shellcheck disable=SC2016 # the inner shell expands it
try 'reach the control socket' sh -c 'find "$1/containers" -name monitor -type s | grep -q .' sh "$store"
for pid in "$program" "$monitor"; do
	try "signal $pid" kill -0 "$pid"
	try "see the files of $pid" ls "/proc/$pid/root/"
	try "see the descriptors of $pid" ls "/proc/$pid/fd"
	try "see the memory of $pid" grep -q . "/proc/$pid/maps"
	try "enter the namespaces of $pid" nsenter --preserve-credentials -t "$pid" -U -m true
done
try 'read the environment' grep -qa c4n4ry "/proc/$program/environ"
# shellcheck disable=SC2016 # the inner shell expands it
try 'talk to the published port' timeout 20 bash -c 'exec 3<> "/dev/tcp/127.0.0.1/$1" && read -r line <&3 && [ "$line" = open ]' bash "$port"
true
