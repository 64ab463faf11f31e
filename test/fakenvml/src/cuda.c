/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A libcuda.so.1 for tests: a device is a device node /dev/nvidiaN that can be opened, as for the real one, its memory the host's. So what a
 * program sees is decided by the kernel. The nodes of tests have no driver: ENXIO is what who may open one gets. What the real one is known to
 * fail without (drivers 570 and newer), this one does: it names a thread by its file in /proc, makes a file in memory, and looks for its
 * module and for devices in /sys.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SUCCESS = 0, NO_MEMORY = 2, NO_DEVICE = 100, OPERATING_SYSTEM = 304, DEVICES = 8 };

static int minors[DEVICES], count;

static int can_open(const char *node)
{
	int fd = open(node, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0 || errno == ENXIO;
}

static int can_start(void)
{
	char comm[64];
	int fd, ok;

	snprintf(comm, sizeof comm, "/proc/self/task/%d/comm", (int)gettid());
	fd = open(comm, O_RDWR | O_CLOEXEC);
	ok = fd >= 0 && write(fd, "cuda-test", 9) == 9;
	if (fd >= 0)
		close(fd);
	fd = memfd_create("cuda-test", MFD_CLOEXEC);
	ok = ok && fd >= 0;
	if (fd >= 0)
		close(fd);
	return ok && !access("/sys/module/nvidia/initstate", R_OK) && !access("/sys/bus/pci/devices", R_OK);
}

int cuInit(unsigned int flags)
{
	(void)flags;
	if (!can_start())
		return OPERATING_SYSTEM;
	if (!can_open("/dev/nvidiactl") || !can_open("/dev/nvidia-uvm"))
		return NO_DEVICE;
	for (int minor = 0; minor < DEVICES; minor++) {
		char node[32];

		snprintf(node, sizeof node, "/dev/nvidia%d", minor);
		if (can_open(node))
			minors[count++] = minor;
	}
	return count ? SUCCESS : NO_DEVICE;
}

int cuGetErrorName(int error, const char **name)
{
	switch (error) {
	case NO_MEMORY:
		*name = "CUDA_ERROR_OUT_OF_MEMORY";
		break;
	case NO_DEVICE:
		*name = "CUDA_ERROR_NO_DEVICE";
		break;
	case OPERATING_SYSTEM:
		*name = "CUDA_ERROR_OPERATING_SYSTEM";
		break;
	default:
		*name = "CUDA_ERROR_UNKNOWN";
	}
	return SUCCESS;
}

int cuDeviceGetCount(int *n)
{
	*n = count;
	return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal)
{
	*device = ordinal;
	return SUCCESS;
}

int cuDeviceGetName(char *name, int length, int device)
{
	snprintf(name, length, "fake device of /dev/nvidia%d", minors[device]);
	return SUCCESS;
}

int cuDeviceGetUuid(unsigned char *uuid, int device)
{
	memset(uuid, 0x10 * (minors[device] + 1), 16);
	return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int device)
{
	*context = &minors[device];
	return SUCCESS;
}

int cuCtxSetCurrent(void *context)
{
	(void)context;
	return SUCCESS;
}

int cuMemAlloc_v2(unsigned long long *at, size_t size)
{
	void *memory = malloc(size);

	*at = (unsigned long long)memory;
	return memory ? SUCCESS : NO_MEMORY;
}

int cuMemFree_v2(unsigned long long at)
{
	free((void *)at);
	return SUCCESS;
}

int cuMemsetD8_v2(unsigned long long at, unsigned char value, size_t size)
{
	memset((void *)at, value, size);
	return SUCCESS;
}

int cuMemcpyDtoH_v2(void *into, unsigned long long at, size_t size)
{
	memcpy(into, (void *)at, size);
	return SUCCESS;
}
