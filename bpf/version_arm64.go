package bpf

// Made by go generate: the start of the SHA-256 of the objects gate, steer and lsm, one after the other.
const version = "14b58b33"
