// park FOLDER OBJECT SEMAPHORES QUEUES FIRST COUNT: the readers FIRST to FIRST + COUNT - 1, a thread each, which block
// on a mount until they are killed. Nine of ten wait on OBJECT0, OBJECT1, ... of SEMAPHORES semaphores, the tenth on
// OBJECT0, ... of QUEUES queues.

#include "../peers/target.h"
#include "measure.h"

static const char *folder, *object;
static int semaphores, queues;

static void *wait_for_ever(void *argument)
{
    int reader = (intptr_t)argument;
    char path[PATH_MAX], buffer[64];
    if (reader % 10 == 9)
        snprintf(path, sizeof path, "%s/mq/%s%d", folder, object, reader / 10 % queues);
    else
        snprintf(path, sizeof path, "%s/sem/%s%d", folder, object, (reader - reader / 10) % semaphores);
    struct target target = open_target(path, O_RDONLY);
    take(target, buffer, sizeof buffer);
    fail(path); // there is nothing to take
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return 2;
    end_with_parent();
    folder = argv[1];
    object = argv[2];
    semaphores = atoi(argv[3]);
    queues = atoi(argv[4]);
    int first = atoi(argv[5]), count = atoi(argv[6]);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 32 * 1024);
    for (int i = 0; i < count; i++) {
        pthread_t thread;
        errno = pthread_create(&thread, &small, wait_for_ever, (void *)(intptr_t)(first + i));
        if (errno)
            fail("pthread_create");
    }
    for (;;)
        pause();
}
