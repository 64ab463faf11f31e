// Package policy is the language: it reads a policy file, checks it, merges presets into it, compiles it to plain
// data, and explains what it says.
//
// It owns what a policy means: every key, every default, which rule decides. A policy is taken whole or refused with
// file, line and column; nothing is guessed, nothing unknown or unenforced is skipped.
//
// It never touches the system: no file is opened but the policy itself (Load), no name is resolved, no symlink is
// followed, no command is looked for. It imports nothing of ours.
package policy
