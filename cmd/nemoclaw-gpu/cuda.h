/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* CUDA by its driver alone: no toolkit, and no library of it at build time. */
#ifndef NEMOCLAW_CUDA_H
#define NEMOCLAW_CUDA_H

#include <stddef.h>

enum { CUDA_NAME = 128, CUDA_UUID = 16, CUDA_ERROR_TEXT = 192 };

struct cuda_proof {
	char name[CUDA_NAME];
	unsigned char uuid[CUDA_UUID];
	size_t bytes;		     /* that came back as they should */
	char error[CUDA_ERROR_TEXT]; /* empty: nothing failed */
};

/* Loads libcuda and counts the devices. 0, or -1 with the reason in error. */
int cuda_open(int *devices, char error[CUDA_ERROR_TEXT]);

/* Takes memory of a device, has the device fill it, and reads it back. The device stays this process's to its end. */
void cuda_prove(int device, struct cuda_proof *proof);

#endif
