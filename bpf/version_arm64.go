package bpf

// Made by go generate: the start of the SHA-256 of the objects gate and steer, one after the other.
const version = "2ebc9631"
