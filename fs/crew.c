#include "crew.h"

enum { SHARE = 64 }; /* requests of one thread, before it adds them to those of all */

/* Nanoseconds. */
#define WINDOW INT64_C(16000000) /* long enough for a scheduler to find a place for each */
#define SELDOM INT64_C(50000)    /* where a request takes as long, there is no need for more readers */
#define APART INT64_C(64000000)
#define APART_MAX INT64_C(2048000000)

static __thread unsigned share;

void crew_setup(struct crew *crew, unsigned cores)
{
    *crew = (struct crew){.cores = cores, .wanted = 1, .best = 1, .apart = APART};
    pthread_mutex_init(&crew->lock, NULL);
}

void crew_free(struct crew *crew)
{
    pthread_mutex_destroy(&crew->lock);
}

unsigned crew_wanted(const struct crew *crew)
{
    return __atomic_load_n(&crew->wanted, __ATOMIC_RELAXED);
}

bool crew_count(void)
{
    return ++share >= SHARE;
}

static void use(struct crew *crew, unsigned count)
{
    __atomic_store_n(&crew->wanted, count, __ATOMIC_RELAXED);
}

static void begin_window(struct crew *crew, int64_t now)
{
    crew->began = now;
    crew->served = crew->count = 0;
}

static void add_caller(struct crew *crew, pid_t caller)
{
    if (crew->count > CREW_MAX)
        return;
    for (unsigned i = 0; i < crew->count; i++)
        if (crew->callers[i] == caller)
            return;
    if (crew->count < CREW_MAX)
        crew->callers[crew->count] = caller;
    crew->count++;
}

/* Where there are more callers than cores, or who they are is not known, they need half of these themselves. */
static unsigned most(const struct crew *crew)
{
    const bool few = crew->count && crew->count <= CREW_MAX && crew->count <= crew->cores;
    const unsigned count = few ? crew->count : crew->cores / 2;
    return count > CREW_MAX ? CREW_MAX : count ? count : 1;
}

static void end_trial(struct crew *crew, unsigned best, int64_t apart, int64_t now)
{
    crew->best = best;
    crew->other = 0;
    crew->apart = apart > APART_MAX ? APART_MAX : apart;
    crew->next = now + crew->apart;
    use(crew, best);
}

static void judge_trial(struct crew *crew, int64_t time, int64_t now)
{
    /* To have more costs more, and is to gain more. */
    const bool helps = time * 10 <= crew->before * (crew->other < crew->best ? 9 : 8);
    const bool harms = time * 2 > crew->before * 3;
    if (crew->settled ? !helps : harms) {
        crew->fewer = !crew->fewer;
        end_trial(crew, crew->best, crew->apart * 2, now);
    } else if (crew->settled) {
        end_trial(crew, crew->other, APART, now);
    }
    crew->settled = true;
}

/* What has been found out for some number of callers stays for the next time that there are as many. */
static void judge(struct crew *crew, int64_t time, int64_t now)
{
    const unsigned limit = most(crew);
    if (crew->other > limit || crew->best > limit) {
        crew->other = 0;
        use(crew, limit);
    } else if (crew->other) {
        judge_trial(crew, time, now);
    } else if (crew_wanted(crew) != crew->best || time > SELDOM || now < crew->next || limit == 1) {
        use(crew, crew->best);
    } else {
        crew->fewer = crew->best == limit || (crew->best > 1 && crew->fewer);
        crew->other = crew->fewer ? crew->best - 1 : crew->best + 1;
        crew->before = time;
        crew->settled = false;
        use(crew, crew->other);
    }
}

void crew_judge(struct crew *crew, pid_t caller, int64_t now)
{
    if (pthread_mutex_trylock(&crew->lock))
        return; /* the next time */
    crew->served += share;
    share = 0;
    if (caller)
        add_caller(crew, caller);
    if (now - crew->began >= WINDOW) {
        judge(crew, (now - crew->began) / crew->served, now);
        begin_window(crew, now);
    }
    pthread_mutex_unlock(&crew->lock);
}

void crew_rested(struct crew *crew, int64_t now)
{
    share = 0;
    pthread_mutex_lock(&crew->lock);
    crew->other = 0;
    use(crew, 1);
    begin_window(crew, now);
    pthread_mutex_unlock(&crew->lock);
}
