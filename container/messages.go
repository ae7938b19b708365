// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"os"
	"slices"

	"sbx/userns"
)

// The conversation with a monitor, over a SOCK_SEQPACKET socket. Whoever starts
// the container is its first client, over a socket pair that the monitor is born
// with; every other connects to monitorSocket in the container's directory. They
// are all served alike.
//
//	client                                monitor
//	 hello + files (starter only) ───────►
//	 request ────────────────────────────► one way, or answered when it has Ask
//	                    ◄──────────────── reply, in the order of the requests
//	                    ◄──────────────── reply{Ended}, at any time, to those who attached or wait
//	 end of file ────────────────────────► the client left, and what it attached is let go

// monitorSocket is the name of the monitor's socket in the container's directory.
const monitorSocket = "monitor"

// hello is the first message of the starter to the monitor, sent before the
// monitor exists. It carries what the monitor needs at every start; the rest it
// reads from the record when it is asked for it, see monitor.config.
type hello struct {
	ID         string        `json:"id"`
	Name       string        `json:"name"`
	Home       string        `json:"home"` // the directory of containers
	Here       process       `json:"here"` // boot, machine and pid namespace of the client
	TTY        bool          `json:"tty,omitempty"`
	AutoRemove bool          `json:"autoRemove,omitempty"`
	Tied       bool          `json:"tied,omitempty"`   // the container ends with its starter
	Health     bool          `json:"health,omitempty"` // there is a health check in the record
	Restart    RestartPolicy `json:"restart,omitzero"`
	StopSignal int           `json:"stopSignal"`
	PIDsOf     string        `json:"pidsOf,omitempty"`     // the ID of the container whose processes this one shares, see shared_pid.go
	Memory     int64         `json:"memory,omitempty"`     // bytes that the container may hold; 0: any
	MemorySwap int64         `json:"memorySwap,omitempty"` // and with what of it is swapped out; not positive: any
	// Group is the container's control group, and Held the limits that are held there.
	Group string   `json:"group,omitempty"`
	Held  []string `json:"held,omitempty"`
	// Attributes are those of the container's events.
	Attributes map[string]string `json:"attributes,omitempty"`
	Refused    string            `json:"refused,omitempty"`
	Volumes    []Mount           `json:"volumes,omitempty"` // anonymous ones, which go when the container removes itself
	Log        LogConfig         `json:"log"`
	Emulation  *emulation        `json:"emulation,omitempty"`
	Files      []string          `json:"files,omitempty"` // what the message's files are

	Network      *NetworkState `json:"network,omitempty"`
	NetworkFiles []string      `json:"networkFiles,omitempty"` // that follow in messages of their own
}

// Names of files in messages. The first three are the monitor's ends of the
// program's pipes; the others a client's, which it reads or writes.
const (
	fileStdin    = "stdin"  // the write end
	fileStdout   = "stdout" // the read ends
	fileStderr   = "stderr"
	fileOut      = "out"      // where the monitor writes the program's output,
	fileErr      = "err"      // and its errors
	fileTerminal = "terminal" // a stream socket, for input too
	filePidfd    = "pidfd"    // of the container's pid 1
	fileUser     = "user"     // the user namespace that owns the container's others
	fileStatus   = "status"   // a pipe that brings the status of a process that was executed, one byte
	fileMounts   = "mounts"   // a mount namespace
)

// request is what a client asks of a monitor.
type request struct {
	Do     string   `json:"do"`
	Ask    bool     `json:"ask,omitempty"` // an answer is wanted
	Signal int      `json:"signal,omitempty"`
	Rows   uint16   `json:"rows,omitempty"`
	Cols   uint16   `json:"cols,omitempty"`
	Grace  int      `json:"grace,omitempty"` // seconds between stop's signal and SIGKILL; negative: for ever
	Input  bool     `json:"input,omitempty"` // attach wants the program's input
	Files  []string `json:"files,omitempty"`
	// Identity is who the process of a listener starts as.
	Identity *Identity `json:"identity,omitempty"`
	Paths    []string  `json:"paths,omitempty"` // by which it is started, see fakeroot.Listener
	Name     string    `json:"name,omitempty"`  // of a network, for disconnect; for watch, by which events name the process
	Place    *Place    `json:"place,omitempty"` // for connect
}

// What a request can be.
const (
	doSignal     = "signal"   // Signal to the program
	doStop       = "stop"     // Signal, and SIGKILL after Grace; no restart
	doResize     = "resize"   // the terminal, to Rows and Cols
	doAttach     = "attach"   // write the output to these files too, and tell of the end
	doDetach     = "detach"   // the starter leaves and the container stays
	doWait       = "wait"     // tell of the end
	doJoin       = "join"     // the descriptors that a process needs to enter, see exec
	doAdopt      = "adopt"    // keep this terminal of a process that was executed, and read it empty
	doWatch      = "watch"    // write down the end of a process that a client has executed and left
	doGuard      = "guard"    // end who is in this mount namespace when the client, a monitor, has gone
	doListener   = "listener" // serve the system calls of a process that was executed
	doPause      = "pause"
	doUnpause    = "unpause"
	doConnect    = "connect"    // to a network, with its endpoint
	doDisconnect = "disconnect" // from a network
	doReload     = "reload"     // the record was changed: rename, update
	doFollow     = "follow"     // tell of every new record of the log
	doOwners     = "owners"     // write down whose files are whose, for who reads them
)

// reply is what a monitor says.
type reply struct {
	Error   *userns.RemoteError `json:"error,omitempty"`
	Ended   *report             `json:"ended,omitempty"`
	Written bool                `json:"written,omitempty"` // something new is in the log
	Files   []string            `json:"files,omitempty"`
}

// report is the monitor's last word.
type report struct {
	Status  int  `json:"status"`            // 0-255, 128+n when signalled
	Refused bool `json:"refused,omitempty"` // the program met what hello.Refused says
}

// bundle are files of a message, by name.
type bundle struct {
	names []string
	files []*os.File
}

func (b *bundle) add(name string, f *os.File) {
	if f != nil {
		b.names, b.files = append(b.names, name), append(b.files, f)
	}
}

// filesPerMessage is how many go at once where there are many.
const filesPerMessage = 16

// send sends the files in as many messages as it takes; receiveFiles is the other
// side, which knows their names.
func (b *bundle) send(conn *userns.Conn) error {
	for part := range slices.Chunk(b.files, filesPerMessage) {
		if err := conn.Send(struct{}{}, part...); err != nil {
			return err
		}
	}
	return nil
}

func receiveFiles(ctx context.Context, conn *userns.Conn, names []string) (map[string]*os.File, error) {
	var all []*os.File
	for len(all) < len(names) {
		var none struct{}
		files, err := conn.Receive(ctx, &none)
		if err == nil && len(files) == 0 {
			err = errors.New("receive files: none came")
		}
		if err != nil {
			for _, f := range all {
				f.Close()
			}
			return nil, err
		}
		all = append(all, files...)
	}
	return unbundle(names, all), nil
}

// close gives up what the other side has received.
func (b *bundle) close() {
	for _, f := range b.files {
		f.Close()
	}
	*b = bundle{}
}

// unbundle gives the files of a received message their names. Those without one
// are closed.
func unbundle(names []string, files []*os.File) map[string]*os.File {
	m := make(map[string]*os.File, len(files))
	for i, f := range files {
		if i >= len(names) || m[names[i]] != nil {
			f.Close()
			continue
		}
		m[names[i]] = f
	}
	return m
}

func closeFiles(m map[string]*os.File) {
	for _, f := range m {
		f.Close()
	}
}
