// SPDX-License-Identifier: Apache-2.0

package cli

// containerGroup has the commands on containers in Docker's long form.
func containerGroup() command {
	return command{name: "container", summary: "Manage containers", commands: []command{
		attachCommand(),
		commitCommand(),
		cpCommand(),
		createCommand(),
		diffCommand(),
		execCommand(),
		exportCommand(),
		inspectTypeCommand(typeContainer, "CONTAINER", "containers"),
		killCommand(),
		logsCommand(),
		renamed(psCommand(), "ls", "ps", "list"),
		pauseCommand(),
		portCommand(),
		containerPruneCommand(),
		renameCommand(),
		restartCommand(),
		renamed(rmCommand(), "rm", "remove"),
		runCommand(),
		startCommand(),
		statsCommand(),
		stopCommand(),
		topCommand(),
		unpauseCommand(),
		updateCommand(),
		waitCommand(),
	}}
}

// imageGroup has the commands on images in Docker's long form.
func imageGroup() command {
	return command{name: "image", summary: "Manage images", commands: []command{
		historyCommand(),
		importCommand(),
		buildCommand(),
		inspectTypeCommand(typeImage, "IMAGE", "images"),
		loadCommand(),
		renamed(imagesCommand(), "ls", "list"),
		imagePruneCommand(),
		pullCommand(),
		pushCommand(),
		renamed(rmiCommand(), "rm", "remove"),
		saveCommand(),
		tagCommand(),
	}}
}

// systemGroup has the commands on everything.
func systemGroup() command {
	return command{name: "system", summary: "Manage sbx itself", commands: []command{
		dfCommand(),
		eventsCommand(),
		bootCommand(),
		infoCommand(),
		systemPruneCommand(),
		resetCommand(),
	}}
}

// renamed is a command under another name.
func renamed(cmd command, name string, aliases ...string) command {
	cmd.name, cmd.aliases = name, aliases
	return cmd
}
