/* When idle cores are kept awake: what is written to the file that asks for it. */
#include "../../fs/awake.h"
#include "../core/check.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <unistd.h>

enum { STRETCH = 32, WORTH = 8, LONG = 20000, SHORT = 3000 };
#define ANY INT32_C(2000000000)

static struct awake awake;
static int asked;

/* In place of the kernel's file, a pipe. */
static void begin(void)
{
    int ends[2];
    CHECK_IS(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    awake_setup(&awake, 0);
    asked = ends[0];
    awake.fd = ends[1];
}

static void end(void)
{
    int32_t latency;
    CHECK_IS(read(asked, &latency, sizeof latency), -1);
    awake_free(&awake);
    close(asked);
}

static void stretches(unsigned count, int64_t gap)
{
    for (unsigned i = 0; i < count * STRETCH; i++)
        awake_caught(&awake, gap);
}

static void check_asked(int32_t expected)
{
    int32_t latency = -1;
    CHECK_IS(read(asked, &latency, sizeof latency), sizeof latency);
    CHECK_IS(latency, expected);
}

static void check_nothing_asked(void)
{
    int32_t latency;
    CHECK_IS(read(asked, &latency, sizeof latency), -1);
}

static void kept_while_it_helps(void)
{
    begin();
    stretches(1, LONG);
    check_asked(0);
    stretches(100, SHORT);
    check_nothing_asked();
    for (int i = 0; i < 3; i++)
        CHECK(awake_slow(&awake));
    CHECK(!awake_slow(&awake));
    check_asked(ANY);
    CHECK(!awake_slow(&awake));
    end();
}

static void slow_ones_far_between_do_not_count(void)
{
    begin();
    stretches(1, LONG);
    check_asked(0);
    for (int i = 0; i < 20; i++) {
        stretches(1, SHORT);
        CHECK(awake_slow(&awake));
    }
    check_nothing_asked();
    end();
}

static void ends_when_nobody_comes(void)
{
    begin();
    stretches(1, LONG);
    check_asked(0);
    stretches(1, SHORT);
    CHECK(awake_slow(&awake));
    awake_let_go(&awake);
    check_asked(ANY);
    awake_let_go(&awake);
    end();
}

static void not_asked_where_little_can_be_saved(void)
{
    begin();
    stretches(100, 7900);
    end();
}

/* What was seen between two that come slowly is not one stretch. */
static void not_asked_for_a_few_at_a_time(void)
{
    begin();
    for (int i = 0; i < 100; i++) {
        for (int j = 0; j < STRETCH - 1; j++)
            awake_caught(&awake, LONG);
        CHECK(!awake_slow(&awake));
    }
    end();
}

static void tried_less_and_less_often(int64_t gap, void (*fail)(void))
{
    begin();
    for (unsigned apart = 1; apart <= 1024; apart *= 2) {
        stretches(apart - 1, gap);
        check_nothing_asked();
        stretches(1, gap);
        check_asked(0);
        fail();
        check_asked(ANY);
    }
    stretches(1023, gap);
    check_nothing_asked();
    stretches(1, gap);
    check_asked(0);
    stretches(WORTH, SHORT);
    awake_let_go(&awake);
    check_asked(ANY);
    stretches(1, gap);
    check_asked(0);
    end();
}

static void come_no_sooner(void)
{
    stretches(1, LONG);
}

static void come_hardly_sooner(void)
{
    stretches(1, LONG - 7000);
}

static void stay_away(void)
{
    stretches(WORTH - 1, SHORT);
    awake_let_go(&awake);
}

static void tried_less_and_less_often_where_it_does_not_help(void)
{
    tried_less_and_less_often(LONG, come_no_sooner);
    tried_less_and_less_often(LONG, come_hardly_sooner);
}

static void tried_less_and_less_often_where_it_is_soon_over(void)
{
    tried_less_and_less_often(LONG, stay_away);
}

static void a_third_must_be_saved(void)
{
    begin();
    stretches(1, 90000);
    check_asked(0);
    stretches(1, 61000);
    check_asked(ANY);
    stretches(2, 90000);
    check_asked(0);
    stretches(1, 60000);
    end();
}

static void judged_again_and_again(void)
{
    begin();
    stretches(1, LONG);
    check_asked(0);
    stretches(50, SHORT);
    check_nothing_asked();
    stretches(1, LONG);
    check_asked(ANY);
    end();
}

/* Those that we went to sleep before are forgotten at each beginning. */
static void slow_ones_of_another_time_do_not_count(void)
{
    begin();
    for (int i = 0; i < 2; i++) {
        stretches(1 + i, LONG); /* it was over soon, so it takes two the second time */
        check_asked(0);
        for (int j = 0; j < 3; j++)
            CHECK(awake_slow(&awake));
        awake_let_go(&awake);
        check_asked(ANY);
    }
    end();
}

static void a_few(void)
{
    for (int i = 0; i < STRETCH - 1; i++)
        awake_caught(&awake, LONG);
}

static void what_was_seen_before_a_change_does_not_count(void)
{
    begin();
    stretches(1, LONG);
    check_asked(0);
    stretches(WORTH, SHORT);
    a_few();
    awake_let_go(&awake);
    check_asked(ANY);
    a_few();
    check_nothing_asked();
    awake_caught(&awake, LONG);
    check_asked(0);
    end();
}

static int hold_in_another_thread(void *arg)
{
    (void)arg;
    stretches(1, LONG);
    return 0;
}

static void what_one_thread_saw_before_another_ones_change_does_not_count(void)
{
    begin();
    a_few();
    struct peer peer;
    peer_start(&peer, hold_in_another_thread, NULL);
    CHECK_IS(peer_result(&peer), 0);
    check_asked(0);
    awake_caught(&awake, LONG);
    check_nothing_asked();
    end();
}

static void not_kept_where_it_cannot_be_asked(void)
{
    begin();
    signal(SIGPIPE, SIG_IGN);
    close(asked);
    stretches(1, LONG);
    CHECK(!awake_slow(&awake));
    awake_free(&awake);
}

/* Where it cannot be taken back, the file is closed, which does. */
static void over_where_it_cannot_be_taken_back(void)
{
    begin();
    signal(SIGPIPE, SIG_IGN);
    stretches(1, LONG);
    check_asked(0);
    close(asked);
    awake_let_go(&awake);
    CHECK(!awake_slow(&awake));
    CHECK_IS(awake.fd, -1);
    stretches(3, LONG);
    awake_free(&awake);
}

static void not_on_machines_with_more_cores(void)
{
    const unsigned cores = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    awake_setup(&awake, cores - 1);
    CHECK_IS(awake.fd, -1);
    stretches(2, LONG);
    CHECK(!awake_slow(&awake));
    awake_free(&awake);

    const bool may = access("/dev/cpu_dma_latency", W_OK) == 0;
    awake_setup(&awake, cores);
    CHECK_IS(awake.fd >= 0, may);
    awake_free(&awake);
}

int main(int argc, char **argv)
{
    (void)argc;
    static const struct test tests[] = {
        TEST(kept_while_it_helps),
        TEST(slow_ones_far_between_do_not_count),
        TEST(ends_when_nobody_comes),
        TEST(not_asked_where_little_can_be_saved),
        TEST(not_asked_for_a_few_at_a_time),
        TEST(tried_less_and_less_often_where_it_does_not_help),
        TEST(tried_less_and_less_often_where_it_is_soon_over),
        TEST(a_third_must_be_saved),
        TEST(judged_again_and_again),
        TEST(slow_ones_of_another_time_do_not_count),
        TEST(what_was_seen_before_a_change_does_not_count),
        TEST(what_one_thread_saw_before_another_ones_change_does_not_count),
        TEST(not_kept_where_it_cannot_be_asked),
        TEST(over_where_it_cannot_be_taken_back),
        TEST(not_on_machines_with_more_cores),
        {0},
    };
    return run_tests(tests, argv);
}
