/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A libnvidia-ml.so.1 for tests: it answers what the file FAKE_CONF says, read anew for each nvmlDeviceGetCount. The real
 * header declares each function, so one with a wrong signature does not compile. What the file does not mention is not supported.
 *
 *	init CODE                       what nvmlInit returns
 *	count crash | hang              instead of an answer
 *	gpu KEY=VALUE ...               a device: uuid name minor total used busy membusy power limit temp ecc corrected uncorrected
 *	                                remapfail hot mig maxmig events
 *	mig KEY=VALUE ...               a part of the last one: uuid name gi ci total used
 *	process KEY=VALUE ...           a process on it: pid used sm gi ci graphics
 *	xid KEY=VALUE ...               an error of a device with events=1: code times; each time is an event, once in a process
 */
#include "nvml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { GPUS = 8, PARTS = 8, PROCESSES = 32, LINE = 512, UNSET = -1, XIDS = 64, CODES = 2000 };

struct memory {
	long long total, used;
};
struct process {
	long long pid, used, sm, gi, ci, graphics;
};
struct nvmlDevice_st {
	char uuid[96], name[96];
	struct memory memory;
	long long index, minor, busy, membusy, power, limit, temp, ecc, corrected, uncorrected, remapfail, hot, mig,
	    maxmig, gi, ci, events;
	int parts, processes, xids;
	struct {
		long long code, times;
	} xid[XIDS];
	struct nvmlDevice_st *part;
	struct process process[PROCESSES];
};

static struct nvmlDevice_st gpus[GPUS], parts[GPUS][PARTS];
static int count, init;
static long long told[GPUS][CODES]; /* events, by code */
static int registered[GPUS];
static struct nvmlEventSet_st {
	int made;
} events;

/* The value of KEY= in a line, to the next blank; underscores stand for blanks. */
static int text(const char *line, const char *key, char *into, size_t room)
{
	size_t n = strlen(key);

	for (const char *at = strstr(line, key); at; at = strstr(at + 1, key)) {
		if (at[n] != '=' || at[-1] != ' ')
			continue;
		snprintf(into, room, "%.*s", (int)strcspn(at + n + 1, " \n"), at + n + 1);
		return 1;
	}
	return 0;
}

static long long number(const char *line, const char *key)
{
	char value[32];

	return text(line, key, value, sizeof value) ? atoll(value) : UNSET;
}

static void name(const char *line, struct nvmlDevice_st *d)
{
	text(line, "uuid", d->uuid, sizeof d->uuid);
	text(line, "name", d->name, sizeof d->name);
	for (char *c = d->name; *c; c++)
		if (*c == '_')
			*c = ' ';
	d->memory = (struct memory){number(line, "total"), number(line, "used")};
	d->gi = number(line, "gi");
	d->ci = number(line, "ci");
}

static void gpu(const char *line)
{
	struct nvmlDevice_st *d = &gpus[count];

	memset(d, 0, sizeof *d);
	name(line, d);
	d->index = count;
	d->minor = number(line, "minor");
	d->busy = number(line, "busy");
	d->membusy = number(line, "membusy");
	d->power = number(line, "power");
	d->limit = number(line, "limit");
	d->temp = number(line, "temp");
	d->ecc = number(line, "ecc");
	d->corrected = number(line, "corrected");
	d->uncorrected = number(line, "uncorrected");
	d->remapfail = number(line, "remapfail");
	d->hot = number(line, "hot");
	d->mig = number(line, "mig");
	d->maxmig = number(line, "maxmig");
	d->events = number(line, "events");
	d->part = parts[count++];
}

static void read_file(void)
{
	char line[LINE];
	FILE *f;

	count = 0;
	init = NVML_SUCCESS;
	f = fopen(FAKE_CONF, "re");
	while (f && fgets(line, sizeof line, f)) {
		struct nvmlDevice_st *d = count ? &gpus[count - 1] : NULL;

		if (!strncmp(line, "init ", 5))
			init = atoi(line + 5);
		else if (!strcmp(line, "count crash\n"))
			abort();
		else if (!strcmp(line, "count hang\n"))
			for (;;)
				pause();
		else if (!strncmp(line, "gpu ", 4) && count < GPUS)
			gpu(line);
		else if (!strncmp(line, "mig ", 4) && d && d->parts < PARTS)
			name(line, &d->part[d->parts++]);
		else if (!strncmp(line, "xid ", 4) && d && d->xids < XIDS) {
			d->xid[d->xids].code = number(line, "code");
			d->xid[d->xids++].times = number(line, "times");
		} else if (!strncmp(line, "process ", 8) && d && d->processes < PROCESSES)
			d->process[d->processes++] =
			    (struct process){number(line, "pid"), number(line, "used"), number(line, "sm"),
					     number(line, "gi"),  number(line, "ci"),	number(line, "graphics")};
	}
	if (f)
		fclose(f);
}

static nvmlReturn_t give(unsigned int *into, long long value)
{
	if (value == UNSET)
		return NVML_ERROR_NOT_SUPPORTED;
	*into = value;
	return NVML_SUCCESS;
}

static nvmlReturn_t copy(char *into, unsigned int room, const char *from)
{
	if (!*from)
		return NVML_ERROR_NOT_SUPPORTED;
	if (strlen(from) >= room)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	strcpy(into, from);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void)
{
	read_file();
	return init;
}

nvmlReturn_t nvmlShutdown(void)
{
	return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t r)
{
	switch (r) {
	case NVML_SUCCESS:
		return "Success";
	case NVML_ERROR_NOT_SUPPORTED:
		return "Not Supported";
	case NVML_ERROR_NO_PERMISSION:
		return "Insufficient Permissions";
	case NVML_ERROR_DRIVER_NOT_LOADED:
		return "Driver Not Loaded";
	case NVML_ERROR_LIB_RM_VERSION_MISMATCH:
		return "Driver/library version mismatch";
	case NVML_ERROR_GPU_IS_LOST:
		return "GPU is lost";
	default:
		return "Unknown Error";
	}
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
	return copy(version, length, FAKE_VERSION);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
	*version = 12080;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *n)
{
	read_file();
	*n = count;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *d)
{
	if (index >= (unsigned int)count)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (!gpus[index].uuid[0])
		return NVML_ERROR_GPU_IS_LOST;
	d->handle = &gpus[index];
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *uuid, unsigned int length)
{
	return copy(uuid, length, d.handle->uuid);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *into, unsigned int length)
{
	return copy(into, length, d.handle->name);
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t d, unsigned int *minor)
{
	return give(minor, d.handle->minor);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t d, nvmlPciInfo_t *pci)
{
	memset(pci, 0, sizeof *pci);
	pci->bus = d.handle->index + 1;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t d, int *major, int *minor)
{
	(void)d;
	*major = 9;
	*minor = 0;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *memory)
{
	if (d.handle->memory.total == UNSET)
		return NVML_ERROR_NOT_SUPPORTED;
	*memory = (nvmlMemory_t){.total = d.handle->memory.total,
				 .used = d.handle->memory.used,
				 .free = d.handle->memory.total - d.handle->memory.used};
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, nvmlUtilization_t *u)
{
	if (d.handle->busy == UNSET)
		return NVML_ERROR_NOT_SUPPORTED;
	*u = (nvmlUtilization_t){d.handle->busy, d.handle->membusy};
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned int *power)
{
	return give(power, d.handle->power);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t d, unsigned int *limit)
{
	return give(limit, d.handle->limit);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, nvmlTemperatureSensors_t sensor, unsigned int *temp)
{
	(void)sensor;
	return give(temp, d.handle->temp);
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t d, nvmlEnableState_t *now, nvmlEnableState_t *pending)
{
	if (d.handle->ecc == UNSET)
		return NVML_ERROR_NOT_SUPPORTED;
	*now = *pending = d.handle->ecc;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t d, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter,
					 unsigned long long *n)
{
	long long value = type == NVML_MEMORY_ERROR_TYPE_CORRECTED ? d.handle->corrected : d.handle->uncorrected;

	if (counter != NVML_VOLATILE_ECC || value == UNSET)
		return NVML_ERROR_NOT_SUPPORTED;
	*n = value;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t d, unsigned int *corrected, unsigned int *uncorrected,
				       unsigned int *pending, unsigned int *failed)
{
	*corrected = *uncorrected = *pending = 0;
	return give(failed, d.handle->remapfail);
}

nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t d, nvmlEnableState_t *pending)
{
	(void)d;
	(void)pending;
	return NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t d, unsigned long long *reasons)
{
	if (d.handle->hot == UNSET)
		return NVML_ERROR_NOT_SUPPORTED;
	*reasons = d.handle->hot ? nvmlClocksThrottleReasonHwThermalSlowdown : 0;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t d, unsigned int *now, unsigned int *pending)
{
	nvmlReturn_t r = give(now, d.handle->mig);

	*pending = *now;
	return r;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t d, unsigned int *n)
{
	return give(n, d.handle->maxmig);
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t d, unsigned int index, nvmlDevice_t *part)
{
	if (index >= (unsigned int)d.handle->parts)
		return NVML_ERROR_NOT_FOUND;
	part->handle = &d.handle->part[index];
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t d, unsigned int *id)
{
	return give(id, d.handle->gi);
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t d, unsigned int *id)
{
	return give(id, d.handle->ci);
}

static nvmlReturn_t list(nvmlDevice_t d, unsigned int *n, nvmlProcessInfo_t *into, int graphics)
{
	unsigned int room = *n, found = 0;

	for (int i = 0; i < d.handle->processes; i++) {
		struct process *p = &d.handle->process[i];

		if ((p->graphics == 1) != graphics)
			continue;
		if (found < room)
			into[found] = (nvmlProcessInfo_t){.pid = p->pid,
							  .usedGpuMemory = p->used,
							  .gpuInstanceId = p->gi,
							  .computeInstanceId = p->ci};
		found++;
	}
	*n = found;
	return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned int *n, nvmlProcessInfo_t *into)
{
	return list(d, n, into, 0);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t d, unsigned int *n, nvmlProcessInfo_t *into)
{
	return list(d, n, into, 1);
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t d, nvmlProcessUtilizationSample_t *into, unsigned int *n,
					     unsigned long long since)
{
	unsigned int room = *n, found = 0;
	struct timespec now;

	(void)since;
	clock_gettime(CLOCK_REALTIME, &now);
	if (d.handle->mig == 1)
		return NVML_ERROR_NOT_SUPPORTED;
	for (int i = 0; i < d.handle->processes; i++) {
		struct process *p = &d.handle->process[i];

		if (p->sm == UNSET)
			continue;
		if (into && found < room)
			into[found] = (nvmlProcessUtilizationSample_t){
			    .pid = p->pid, .timeStamp = now.tv_sec * 1000000ULL + now.tv_nsec / 1000, .smUtil = p->sm};
		found++;
	}
	*n = found;
	if (!found)
		return NVML_ERROR_NOT_FOUND;
	return !into || found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
	events.made = 1;
	set->handle = &events;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t d, unsigned long long types, nvmlEventSet_t set)
{
	if (!set.handle->made)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (d.handle->events != 1 || types != nvmlEventTypeXidCriticalError)
		return NVML_ERROR_NOT_SUPPORTED;
	registered[d.handle->index] = 1;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout)
{
	(void)timeout;
	if (!set.handle->made)
		return NVML_ERROR_INVALID_ARGUMENT;
	for (int i = 0; i < count; i++)
		for (int j = 0; registered[i] && j < gpus[i].xids; j++) {
			long long code = gpus[i].xid[j].code;

			if (code < 0 || code >= CODES || told[i][code] >= gpus[i].xid[j].times)
				continue;
			told[i][code]++;
			*data = (nvmlEventData_t){
			    .device = {&gpus[i]}, .eventType = nvmlEventTypeXidCriticalError, .eventData = code};
			return NVML_SUCCESS;
		}
	return NVML_ERROR_TIMEOUT;
}
