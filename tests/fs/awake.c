/* When idle cores are kept awake: what is written to the file that asks for it. */
#include "../../fs/awake.h"
#include "../core/check.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <unistd.h>

enum { STRETCH = 64, LONG = 20000, SHORT = 3000 };
#define ANY INT32_C(2000000000)

static struct awake awake;
static int asked;
static _Thread_local int64_t clock_now; /* nanoseconds */

static void request_after(int64_t time)
{
    const int64_t began = clock_now;
    clock_now += time;
    awake_came(&awake, began, clock_now);
}

static void requests(unsigned count, int64_t time)
{
    while (count--)
        request_after(time);
}

static void stretches(unsigned count, int64_t time)
{
    requests(count * STRETCH, time);
}

/* In place of the kernel's file, a pipe. */
static void begin(void)
{
    int ends[2];
    CHECK_IS(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    awake_setup(&awake, 0);
    asked = ends[0];
    awake.fd = ends[1];
    request_after(INT64_C(1000000000)); /* from which on time is taken */
}

static void end(void)
{
    int32_t latency;
    CHECK_IS(read(asked, &latency, sizeof latency), -1);
    awake_free(&awake);
    close(asked);
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
    check_nothing_asked();
    stretches(1, LONG);
    check_asked(0);
    stretches(100, SHORT);
    check_nothing_asked();
    CHECK(awake_is_held(&awake));
    awake_let_go(&awake, clock_now);
    check_asked(ANY);
    CHECK(!awake_is_held(&awake));
    awake_let_go(&awake, clock_now);
    end();
}

static void those_that_are_there_at_once_count(void)
{
    begin();
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < STRETCH - 1; j++)
            awake_at_once();
        check_nothing_asked();
        request_after(STRETCH * INT64_C(10000));
    }
    check_asked(0);
    CHECK_IS(awake.before, 10000);
    end();
}

static void what_is_seen_once_does_not_count(void)
{
    begin();
    for (int i = 0; i < 10; i++) {
        stretches(1, LONG);
        stretches(1, 2000);
    }
    check_nothing_asked();
    stretches(2, LONG);
    check_asked(0);
    for (int i = 0; i < 10; i++) {
        stretches(1, LONG);
        stretches(1, SHORT);
    }
    check_nothing_asked();
    end();
}

static void judged_again_and_again(void)
{
    begin();
    stretches(2, LONG);
    check_asked(0);
    stretches(50, SHORT);
    stretches(1, LONG);
    check_nothing_asked();
    stretches(1, LONG);
    check_asked(ANY);
    end();
}

static void not_asked_where_little_can_be_saved(void)
{
    begin();
    stretches(100, 2999);
    end();
}

static void not_asked_where_nobody_is_in_a_hurry(void)
{
    begin();
    stretches(100, 100000);
    check_nothing_asked();
    stretches(2, 99999);
    check_asked(0);
    end();
}

/* It may last eight times as long as it has saved, and 50 ms. */
static void over_where_it_saves_little(void)
{
    begin();
    stretches(2, LONG);
    check_asked(0);
    stretches(1, SHORT); /* which is 64 times 17 us saved, and 192 us since then */
    request_after(INT64_C(58500000));
    check_nothing_asked();
    request_after(1100000);
    check_asked(ANY);
    end();
}

static void over_for_short_bursts(void)
{
    begin();
    stretches(2, LONG);
    check_asked(0);
    for (int i = 0; i < 20 && awake_is_held(&awake); i++) {
        stretches(1, SHORT);
        request_after(19900000);
    }
    check_asked(ANY);
    end();
}

/* A slow stretch between quick ones costs, too. */
static void over_where_it_saves_only_now_and_then(void)
{
    begin();
    stretches(2, LONG);
    check_asked(0);
    for (int i = 0; i < 20 && awake_is_held(&awake); i++) {
        stretches(1, 900000);
        stretches(1, SHORT);
    }
    check_asked(ANY);
    end();
}

static void looked_at_without_it_again(void)
{
    begin();
    stretches(2, LONG);
    check_asked(0);
    const int64_t since = clock_now;
    while (awake_is_held(&awake))
        request_after(SHORT);
    check_asked(ANY);
    CHECK(clock_now - since > INT64_C(2000000000) && clock_now - since < INT64_C(2001000000));
    stretches(2, 8000);
    check_asked(0);
    CHECK_IS(awake.before, 8000);
    end();
}

static void not_over_where_there_are_always_some(void)
{
    begin();
    stretches(2, LONG);
    check_asked(0);
    for (int i = 0; i < 10; i++) {
        for (int j = 0; j < 999; j++)
            awake_at_once();
        clock_now += 999 * SHORT;
        request_after(SHORT);
    }
    check_nothing_asked();
    end();
}

static void not_asked_for_a_few_at_a_time(void)
{
    begin();
    for (int i = 0; i < 100; i++) {
        requests(STRETCH - 1, LONG);
        request_after(1000001);
    }
    end();
}

static void tried_less_and_less_often(void (*fail)(void))
{
    begin();
    for (unsigned apart = 1; apart <= 64; apart *= 2) {
        stretches(apart, LONG);
        check_nothing_asked();
        stretches(1, LONG);
        check_asked(0);
        fail();
        check_asked(ANY);
    }
    stretches(64, LONG);
    check_nothing_asked();
    stretches(1, LONG);
    check_asked(0);
    stretches(4, SHORT);
    awake_let_go(&awake, clock_now);
    check_asked(ANY);
    request_after(0);
    stretches(2, LONG);
    check_asked(0);
    end();
}

static void come_no_sooner(void)
{
    stretches(2, LONG);
}

static void come_hardly_sooner(void)
{
    stretches(2, LONG - 6000);
}

static void stay_away(void)
{
    clock_now += 20000000;
    awake_let_go(&awake, clock_now);
    request_after(0);
}

static void tried_less_and_less_often_where_it_does_not_help(void)
{
    tried_less_and_less_often(come_no_sooner);
    tried_less_and_less_often(come_hardly_sooner);
}

static void tried_less_and_less_often_where_it_is_soon_over(void)
{
    tried_less_and_less_often(stay_away);
}

static void a_third_must_be_saved(void)
{
    begin();
    stretches(2, 9000);
    check_asked(0);
    stretches(2, 6001);
    check_asked(ANY);
    stretches(3, 9000);
    check_asked(0);
    stretches(10, 6000);
    end();
}

static void what_was_seen_before_a_change_does_not_count(void)
{
    begin();
    stretches(2, LONG);
    check_asked(0);
    stretches(4, SHORT);
    requests(STRETCH - 1, LONG);
    awake_let_go(&awake, clock_now);
    check_asked(ANY);
    request_after(LONG);
    stretches(2, LONG - 1000);
    check_asked(0);
    CHECK_IS(awake.before, LONG - 1000);
    end();
}

static int hold_in_another_thread(void *arg)
{
    clock_now = *(const int64_t *)arg;
    request_after(0);
    stretches(2, LONG);
    return 0;
}

static void what_one_thread_saw_before_another_ones_change_does_not_count(void)
{
    begin();
    requests(STRETCH - 1, LONG);
    int64_t now = clock_now;
    struct peer peer;
    peer_start(&peer, hold_in_another_thread, &now);
    CHECK_IS(peer_result(&peer), 0);
    check_asked(0);
    request_after(LONG);
    CHECK_IS(awake.saved, 0);
    stretches(1, SHORT);
    CHECK_IS(awake.saved, STRETCH * (LONG - SHORT));
    end();
}

static void not_kept_where_it_cannot_be_asked(void)
{
    begin();
    signal(SIGPIPE, SIG_IGN);
    close(asked);
    stretches(2, LONG);
    CHECK(!awake_is_held(&awake));
    CHECK_IS(awake.fd, -1); /* nor is it tried again */
    awake_free(&awake);
}

/* Where it cannot be taken back, the file is closed, which does. */
static void over_where_it_cannot_be_taken_back(void)
{
    begin();
    signal(SIGPIPE, SIG_IGN);
    stretches(2, LONG);
    check_asked(0);
    close(asked);
    awake_let_go(&awake, clock_now);
    CHECK(!awake_is_held(&awake));
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
    CHECK(!awake_is_held(&awake));
    awake_free(&awake);

    const bool may = cores > 1 && access("/dev/cpu_dma_latency", W_OK) == 0;
    awake_setup(&awake, cores);
    CHECK_IS(awake.fd >= 0, may);
    awake_free(&awake);
}

int main(int argc, char **argv)
{
    (void)argc;
    static const struct test tests[] = {
        TEST(kept_while_it_helps),
        TEST(those_that_are_there_at_once_count),
        TEST(what_is_seen_once_does_not_count),
        TEST(judged_again_and_again),
        TEST(not_asked_where_little_can_be_saved),
        TEST(not_asked_where_nobody_is_in_a_hurry),
        TEST(over_where_it_saves_little),
        TEST(over_for_short_bursts),
        TEST(over_where_it_saves_only_now_and_then),
        TEST(looked_at_without_it_again),
        TEST(not_over_where_there_are_always_some),
        TEST(not_asked_for_a_few_at_a_time),
        TEST(tried_less_and_less_often_where_it_does_not_help),
        TEST(tried_less_and_less_often_where_it_is_soon_over),
        TEST(a_third_must_be_saved),
        TEST(what_was_seen_before_a_change_does_not_count),
        TEST(what_one_thread_saw_before_another_ones_change_does_not_count),
        TEST(not_kept_where_it_cannot_be_asked),
        TEST(over_where_it_cannot_be_taken_back),
        TEST(not_on_machines_with_more_cores),
        {0},
    };
    return run_tests(tests, argv);
}
