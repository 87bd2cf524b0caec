// submit PATH COUNT: writes COUNT lines, "0", "1", ..., through one open file by one io_submit(2), which has as many of
// them under way at once as the file system allows. Begins when a line comes in, after "long" was written far behind,
// as the kernel does so only within what it takes for the file's size. Prints what each write gave, in their order.

#include "target.h"

#include <linux/aio_abi.h>
#include <sys/syscall.h>

enum { LINES_MAX = 64 };

int main(int argc, char **argv)
{
    char lines[LINES_MAX][16];
    struct iocb blocks[LINES_MAX], *list[LINES_MAX];
    struct io_event events[LINES_MAX];
    long results[LINES_MAX];
    aio_context_t context = 0;
    const int count = argc == 3 ? atoi(argv[2]) : 0;
    const int file = argc == 3 ? open(argv[1], O_WRONLY) : -1;

    if (count < 1 || count > LINES_MAX)
        return 2;
    if (file < 0 || pwrite(file, "long\n", 5, 1 << 20) != 5 || syscall(SYS_io_setup, count, &context))
        fail(argv[1]);
    if (puts("long") < 0 || fflush(stdout) || getchar() == EOF)
        return 1;
    for (int i = 0; i < count; i++) {
        blocks[i] = (struct iocb){.aio_data = i,
                                  .aio_lio_opcode = IOCB_CMD_PWRITE,
                                  .aio_fildes = file,
                                  .aio_buf = (uintptr_t)lines[i],
                                  .aio_nbytes = snprintf(lines[i], sizeof lines[i], "%d\n", i)};
        list[i] = &blocks[i];
    }
    if (syscall(SYS_io_submit, context, count, list) != count ||
        syscall(SYS_io_getevents, context, count, count, events, NULL) != count)
        fail("io_submit");
    for (int i = 0; i < count; i++)
        results[events[i].data] = events[i].res;
    for (int i = 0; i < count; i++)
        printf("%ld\n", results[i]);
    return 0;
}
