// takers COUNT TARGET...: COUNT threads for each target, each of which takes once. A line "TARGET WHAT" for each as it
// ends; at last "interrupted N", how often SIGUSR1 ended a sleep (which is then begun anew).

#include "target.h"

static atomic_int interrupted;

static void *take_once(void *argument)
{
    const char *text = argument;
    struct target target = open_target(text, O_RDONLY);
    char buffer[8192], line[8192 + 512];
    ssize_t length;

    while ((length = take(target, buffer, sizeof buffer)) == -1 && errno == EINTR)
        interrupted++;
    if (length == -1)
        fail(text);
    if (length > 0 && buffer[length - 1] == '\n')
        length--;
    int size = snprintf(line, sizeof line, "%s %.*s\n", text, (int)length, buffer);
    if (write(STDOUT_FILENO, line, size) != size)
        fail("write");
    return NULL;
}

int main(int argc, char **argv)
{
    int count = atoi(argv[1]), threads = 0;
    pthread_t *thread = calloc((size_t)count * argc, sizeof *thread);
    pthread_attr_t small;
    sigset_t interruption;

    let_signals_interrupt();
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 * 1024);
    for (int i = 2; i < argc; i++)
        for (int j = 0; j < count; j++)
            if ((errno = pthread_create(&thread[threads++], &small, take_once, argv[i])))
                fail("pthread_create");
    sigemptyset(&interruption);
    sigaddset(&interruption, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &interruption, NULL); // a signal to the process then goes to one of the threads
    for (int i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    printf("interrupted %d\n", interrupted);
    return 0;
}
