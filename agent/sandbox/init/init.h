/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "sys.h"
#include "proto.h"

/* launch.c: messages. */
extern int lasting; /* the sandbox outlives the daemon */
long receive(void *buf, size_t size, int *fds, int *nfds);
long reply(uint32_t op, uint32_t a, uint32_t b, int fd);
__attribute__((noreturn)) void quit(int status);
__attribute__((noreturn)) void fail(enum step step, long error);

/* setup.c: PID 1 becomes what a sandbox's init may be. */
void set_up(const struct req_init *req, const int *fds, int listener);

/* serve.c: PID 1 starts commands and reaps until the daemon is gone. */
__attribute__((noreturn)) void serve(void);
