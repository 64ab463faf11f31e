//go:build cgo

package main

// #cgo CFLAGS: -Wall -Werror
// #cgo LDFLAGS: -ldl
// #include "cuda.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"github.com/nemoclaw/nemoclaw/api"
)

// compute has every device that CUDA sees fill some memory, and reads it back.
func compute() ([]api.CUDAProof, error) {
	runtime.LockOSThread() // a context is a thread's
	defer runtime.UnlockOSThread()
	var why [C.CUDA_ERROR_TEXT]C.char
	var devices C.int
	if C.cuda_open(&devices, &why[0]) != 0 {
		return nil, errors.New(C.GoString(&why[0]))
	}
	if devices == 0 {
		return nil, errors.New("CUDA sees no device")
	}
	var proofs []api.CUDAProof
	for i := range int(devices) {
		var p C.struct_cuda_proof
		began := time.Now()
		C.cuda_prove(C.int(i), &p)
		proof := api.CUDAProof{
			Index: i, Name: C.GoString(&p.name[0]), Bytes: int64(p.bytes), Duration: int64(time.Since(began)), Error: C.GoString(&p.error[0]),
		}
		if u := C.GoBytes(unsafe.Pointer(&p.uuid[0]), C.CUDA_UUID); [C.CUDA_UUID]byte(u) != [C.CUDA_UUID]byte{} {
			proof.UUID = fmt.Sprintf("GPU-%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
		}
		proofs = append(proofs, proof)
	}
	return proofs, nil
}
