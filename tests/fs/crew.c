/* How many readers there are: what is tried, and what is kept. */
#include "../../fs/crew.h"
#include "../core/check.h"

#include <string.h>

enum { SHARE = 64 };
#define WINDOW INT64_C(16000000)
#define SECOND INT64_C(1000000000)

static struct crew crew;
static int64_t clock_now;                 /* nanoseconds */
static unsigned windows_of[CREW_MAX + 1]; /* that there were so many readers */

/* Nanoseconds from one request to the next, where there are so many readers: [0] is not used. */
typedef int64_t times[CREW_MAX + 1];
static const times better_two = {0, 13000, 6000, 6000}, /* as measured with two callers on two cores */
    worse_two = {0, 8000, 10000}, same = {0, 8000, 8000, 8000, 8000, 8000, 8000, 8000};

static void begin(unsigned cores)
{
    crew_setup(&crew, cores);
    clock_now = SECOND;
    crew_rested(&crew, clock_now);
    memset(windows_of, 0, sizeof windows_of);
}

static void end(void)
{
    crew_free(&crew);
}

/* Requests by so many callers, whose numbers begin with `first`, for a window. */
static void window(pid_t first, unsigned callers, const times time)
{
    const unsigned wanted = crew_wanted(&crew);
    const int64_t until = clock_now + WINDOW;
    CHECK(wanted >= 1 && wanted <= CREW_MAX);
    windows_of[wanted]++;
    for (unsigned i = 0; clock_now < until; i++) {
        clock_now += time[wanted];
        if (crew_count())
            crew_judge(&crew, first ? first + (pid_t)(i / SHARE % callers) : 0, clock_now);
    }
}

static void windows(unsigned count, unsigned callers, const times time)
{
    while (count--)
        window(100, callers, time);
}

static void one_for_one_caller(void)
{
    begin(2);
    windows(1000, 1, better_two);
    CHECK_IS(windows_of[1], 1000);
    end();
}

static void two_for_two_where_that_is_better(void)
{
    begin(2);
    windows(10, 2, better_two);
    CHECK_IS(crew_wanted(&crew), 2);
    windows(1000, 2, better_two);
    CHECK(windows_of[2] > 900);
    end();
}

static void one_for_two_where_that_is_better(void)
{
    begin(2);
    windows(1000, 2, worse_two);
    CHECK(windows_of[1] > 950);
    CHECK(windows_of[2] >= 5); /* it is tried again, as it may have changed */
    windows(1000, 2, better_two);
    CHECK_IS(crew_wanted(&crew), 2);
    windows(1000, 2, worse_two);
    CHECK_IS(crew_wanted(&crew), 1);
    end();
}

static void one_where_it_makes_no_difference(void)
{
    begin(2);
    windows(1000, 2, same);
    CHECK(windows_of[1] > 950);
    end();
}

static void one_for_more_than_there_are_cores(void)
{
    begin(2);
    windows(1000, 3, better_two);
    windows(1000, 16, better_two);
    CHECK_IS(windows_of[1], 2000);
    end();
}

static void half_the_cores_for_many(void)
{
    static const times more_is_better = {0, 7000, 3500, 2300, 1700, 1300, 1000, 800};
    begin(8);
    windows(1000, 100, more_is_better);
    CHECK(windows_of[4] > 800);
    CHECK_IS(windows_of[5], 0);
    end();
    begin(64);
    windows(1000, 100, more_is_better);
    CHECK(windows_of[CREW_MAX] > 700);
    end();
}

static void never_more_than_callers(void)
{
    static const times more_is_better = {0, 7000, 3500, 2300, 1700, 1300, 1000, 800};
    begin(8);
    windows(1000, 3, more_is_better);
    CHECK(windows_of[3] > 800);
    CHECK_IS(windows_of[4], 0);
    end();
}

static void what_proved_itself_is_kept_for_the_next_time(void)
{
    begin(2);
    windows(20, 2, better_two);
    CHECK_IS(crew_wanted(&crew), 2);
    windows(2, 1, same);
    CHECK_IS(crew_wanted(&crew), 1);
    windows(2, 2, better_two);
    CHECK_IS(crew_wanted(&crew), 2);
    clock_now += SECOND;
    crew_rested(&crew, clock_now);
    CHECK_IS(crew_wanted(&crew), 1);
    windows(2, 2, better_two);
    CHECK_IS(crew_wanted(&crew), 2);
    end();
}

static void not_tried_where_nobody_is_in_a_hurry(void)
{
    static const times slow = {0, 50100, 1000};
    begin(2);
    windows(1000, 2, slow);
    CHECK_IS(windows_of[1], 1000);
    end();
}

static void not_tried_for_short_bursts(void)
{
    begin(2);
    for (int i = 0; i < 1000; i++) {
        windows(1, 2, better_two);
        clock_now += 2000000;
        crew_rested(&crew, clock_now);
    }
    CHECK_IS(windows_of[1], 1000);
    end();
}

static void callers_that_are_not_known(void)
{
    begin(2);
    for (int i = 0; i < 100; i++)
        window(0, 1, better_two);
    CHECK_IS(windows_of[1], 100);
    end();
    begin(4);
    for (int i = 0; i < 100; i++)
        window(0, 1, better_two);
    CHECK_IS(crew_wanted(&crew), 2);
    CHECK_IS(windows_of[3], 0);
    end();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(one_for_one_caller),
        TEST(two_for_two_where_that_is_better),
        TEST(one_for_two_where_that_is_better),
        TEST(one_where_it_makes_no_difference),
        TEST(one_for_more_than_there_are_cores),
        TEST(half_the_cores_for_many),
        TEST(never_more_than_callers),
        TEST(what_proved_itself_is_kept_for_the_next_time),
        TEST(not_tried_where_nobody_is_in_a_hurry),
        TEST(not_tried_for_short_bursts),
        TEST(callers_that_are_not_known),
        {0},
    };
    (void)argc;
    return run_tests(tests, argv);
}
