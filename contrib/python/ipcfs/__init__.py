"""The machine's POSIX IPC objects by way of an ipcfs mount. ipcfs.posix_ipc has the interface of posix_ipc."""

__version__ = '0.1.0'
