// Package image keeps container images on this machine and turns each into one
// read-only EROFS file that a sandbox uses as its root file system.
//
// A [Store] is a directory that several processes may use at once. Images come
// in with [Store.Import], from an OCI archive, an OCI layout, a `docker save`
// archive or a plain directory, or with [Store.Pull], from a registry. Either
// stores the image's blobs and builds its EROFS file, and the image appears
// under its name only when both are complete. [Store.Rootfs] gives the path of
// the EROFS file, building it again when the agent that goes into it changed.
//
// # What is kept of an image
//
// Names, contents, symbolic and hard links, numeric owners, modes (set-uid bits
// too: sandboxes run with no_new_privs) and modification times in whole
// seconds. Extended attributes, file capabilities included, are dropped, because
// gVisor refuses EROFS inodes that have any. Device nodes and FIFOs are left
// out; a sandbox has a /dev of its own.
//
// # What is added
//
// The agent, if one is set; the directories .agentcube, dev, etc, proc, sys,
// tmp (mode 1777) and workspace, where absent; and empty etc/hostname,
// etc/hosts and etc/resolv.conf, where absent, so that they can be mount points.
//
// # What is refused
//
// Archives are hostile until shown otherwise: names that leave the root, links
// that lead out of it, files written through such links, a name twice in one
// layer, digests and sizes that do not match, and anything over [Limits]. Every
// such error is an [*Error] with a stable [Code].
package image
