/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The names and types are those of the CUDA driver's stable interface (cuda.h), written out because the toolkit that has the header is
 * not needed for anything else. The names with _v2 are what cuda.h makes of the plain ones since CUDA 4.
 */
#include "cuda.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int result;
typedef int device;
typedef void *context;
typedef unsigned long long address;

enum { SUCCESS = 0, LENGTH = 1 << 20, PATTERN = 0xa5 };

static struct {
	result (*init)(unsigned flags);
	result (*name_of)(result, const char **);
	result (*device_count)(int *);
	result (*device_get)(device *, int ordinal);
	result (*device_name)(char *, int length, device);
	result (*device_uuid)(unsigned char uuid[CUDA_UUID], device);
	result (*retain)(context *, device);
	result (*set_current)(context);
	result (*allocate)(address *, size_t);
	result (*unallocate)(address);
	result (*fill)(address, unsigned char, size_t);
	result (*read)(void *, address, size_t);
} cuda;

static const struct {
	void *into;
	const char *name;
} symbols[] = {
    {&cuda.init, "cuInit"},
    {&cuda.name_of, "cuGetErrorName"},
    {&cuda.device_count, "cuDeviceGetCount"},
    {&cuda.device_get, "cuDeviceGet"},
    {&cuda.device_name, "cuDeviceGetName"},
    {&cuda.device_uuid, "cuDeviceGetUuid"},
    {&cuda.retain, "cuDevicePrimaryCtxRetain"},
    {&cuda.set_current, "cuCtxSetCurrent"},
    {&cuda.allocate, "cuMemAlloc_v2"},
    {&cuda.unallocate, "cuMemFree_v2"},
    {&cuda.fill, "cuMemsetD8_v2"},
    {&cuda.read, "cuMemcpyDtoH_v2"},
};

static void say(char error[CUDA_ERROR_TEXT], const char *what, result r)
{
	const char *name = NULL;

	if (!cuda.name_of || cuda.name_of(r, &name) != SUCCESS || !name)
		name = "an error without a name";
	snprintf(error, CUDA_ERROR_TEXT, "%s: %s (%d)", what, name, r);
}

int cuda_open(int *devices, char error[CUDA_ERROR_TEXT])
{
	void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	result r;

	if (!lib) {
		snprintf(error, CUDA_ERROR_TEXT, "loading libcuda.so.1: %s", dlerror());
		return -1;
	}
	for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
		void *at = dlsym(lib, symbols[i].name);

		if (!at) {
			snprintf(error, CUDA_ERROR_TEXT, "libcuda.so.1 has no %s: the driver is too old",
				 symbols[i].name);
			return -1;
		}
		memcpy(symbols[i].into, &at, sizeof at);
	}
	r = cuda.init(0);
	if (r != SUCCESS) {
		say(error, "cuInit", r);
		return -1;
	}
	r = cuda.device_count(devices);
	if (r != SUCCESS) {
		say(error, "cuDeviceGetCount", r);
		return -1;
	}
	return 0;
}

/* The memory of a device whose context is current. */
static void fill_and_read(struct cuda_proof *p)
{
	unsigned char *back = calloc(1, LENGTH);
	const char *step = "cuMemAlloc";
	address at = 0;
	result r;

	if (!back) {
		snprintf(p->error, sizeof p->error, "this host has no memory left");
		return;
	}
	r = cuda.allocate(&at, LENGTH);
	if (r == SUCCESS) {
		step = "cuMemsetD8";
		r = cuda.fill(at, PATTERN, LENGTH);
	}
	if (r == SUCCESS) {
		step = "cuMemcpyDtoH";
		r = cuda.read(back, at, LENGTH);
	}
	if (r != SUCCESS)
		say(p->error, step, r);
	else
		while (p->bytes < LENGTH && back[p->bytes] == PATTERN)
			p->bytes++;
	if (r == SUCCESS && p->bytes < LENGTH)
		snprintf(p->error, sizeof p->error, "byte %zu came back as %#x, want %#x", p->bytes, back[p->bytes],
			 PATTERN);
	if (at && (r = cuda.unallocate(at)) != SUCCESS && !p->error[0])
		say(p->error, "cuMemFree", r);
	free(back);
}

void cuda_prove(int ordinal, struct cuda_proof *p)
{
	const char *step = "cuDeviceGet";
	context ctx;
	device d;
	result r = cuda.device_get(&d, ordinal);

	memset(p, 0, sizeof *p);
	if (r == SUCCESS) {
		step = "cuDeviceGetName";
		r = cuda.device_name(p->name, CUDA_NAME - 1, d);
	}
	if (r == SUCCESS) {
		step = "cuDeviceGetUuid";
		r = cuda.device_uuid(p->uuid, d);
	}
	if (r == SUCCESS) {
		step = "cuDevicePrimaryCtxRetain";
		r = cuda.retain(&ctx, d);
	}
	if (r != SUCCESS) {
		say(p->error, step, r);
		return;
	}
	r = cuda.set_current(ctx);
	if (r == SUCCESS)
		fill_and_read(p);
	else
		say(p->error, "cuCtxSetCurrent", r);
}
