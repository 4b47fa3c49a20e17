/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What more than one concern asks about a task. */
#pragma once

#include "kernel.h"

/* The inode number of a task's mount namespace; 0 of one that is ending. */
static __always_inline u32 mount_namespace(struct task_struct *task)
{
	struct nsproxy *proxy = 0;
	struct mnt_namespace *mnt = 0;
	u32 inum = 0;

	core_read(&proxy, &task->nsproxy);
	if (!proxy)
		return 0;
	core_read(&mnt, &proxy->mnt_ns);
	core_read(&inum, &mnt->ns.inum);
	return inum;
}
