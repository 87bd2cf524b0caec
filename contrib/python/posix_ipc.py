"""`import posix_ipc`, with this folder on PYTHONPATH, is ipcfs.posix_ipc."""

import sys

import ipcfs.posix_ipc

sys.modules[__name__] = ipcfs.posix_ipc
