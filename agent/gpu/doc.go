// Package gpu says which NVIDIA GPUs a host has and who uses them, and what of them a sandbox is given: the device nodes, the
// driver's libraries and the environment that its policy's `devices` stand for.
//
// The driver's libraries are C. They are loaded by a helper, nemoclaw-gpu, which runs as nobody and is asked through pipes; so
// whoever asks stays static, and neither a crash nor a hang of them is more to it than an answer that says so. A host without
// a driver, its library or the helper has no GPUs, which is no error.
//
// It never opens a device, never decides what a policy allows, and enforces nothing: packages sandbox and loader do.
package gpu
