# SPDX-License-Identifier: LGPL-2.1-or-later
"""A system call in another process, for what nobody but itself could do to it."""

import ctypes
import os
import platform

from harness import Skip

ATTACH, DETACH, GETREGS, SETREGS, SINGLESTEP = 16, 17, 12, 13, 9
# struct user_regs_struct of x86-64, as far as it is changed here.
N_REGS, RAX, RSI, RDI, ORIG_RAX, RIP = 27, 10, 13, 14, 15, 16
MLOCK, MUNLOCK = 149, 150

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(what, pid, data=None):
    if libc.ptrace(what, pid, None, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def inject(pid, number, first, second):
    """Has process @pid, whose main thread waits in a system call, do another one; returns what that returned."""
    if platform.machine() != "x86_64":
        raise Skip("needs an x86-64, whose registers are known")
    try:
        ptrace(ATTACH, pid)
    except PermissionError as e:
        raise Skip("may not trace other processes") from e
    try:
        os.waitpid(pid, 0)
        before, regs = (ctypes.c_ulong * N_REGS)(), (ctypes.c_ulong * N_REGS)()
        ptrace(GETREGS, pid, before)
        regs[:] = before
        # Behind the instruction that it waits in: once more, with other arguments, and nothing is to be restarted.
        regs[RAX], regs[RDI], regs[RSI], regs[ORIG_RAX], regs[RIP] = number, first, second, (1 << 64) - 1, before[RIP] - 2
        ptrace(SETREGS, pid, regs)
        ptrace(SINGLESTEP, pid)
        os.waitpid(pid, 0)
        ptrace(GETREGS, pid, regs)
        ptrace(SETREGS, pid, before)
    finally:
        ptrace(DETACH, pid)
    return ctypes.c_long(regs[RAX]).value
