#!/usr/bin/env perl
# Work queue on ipcfs: work_queue.pl produce NAME N | consume NAME. See README.md.
use v5.14;
use warnings;
use Fcntl qw(O_CREAT O_RDWR SEEK_SET);

my $mount = $ENV{IPCFS_MOUNT} // '/mnt/ipc';

sub open_object {
    my ($path) = @_;
    sysopen my $object, "$mount/$path", O_CREAT | O_RDWR or die "$mount/$path: $!\n";
    return $object;
}

# One operation: receives from a queue, waits on a semaphore, reads the counter. The sys functions go past Perl's
# buffers, which would read again and so receive twice.
sub get {
    my ($object) = @_;
    sysseek $object, 0, SEEK_SET or die "seek: $!\n";
    sysread($object, my $text, 64) // die "read: $!\n";
    return $text =~ s/^\s+|\s+$//gr;
}

sub put {
    my ($object, $text) = @_;
    sysseek $object, 0, SEEK_SET or die "seek: $!\n";
    syswrite $object, $text or die "write: $!\n";
}

sub produce {
    my ($jobs, $n) = @_;
    put($jobs, $_) for 1 .. $n;
    put($jobs, 'end');
}

sub consume {
    my ($jobs, $lock, $counter) = @_;
    while ((my $job = get($jobs)) ne 'end') {
        $job =~ /^\d+$/ or die "not a job: $job\n";
        get($lock);                                # wait
        my $total = (get($counter) || 0) + $job;   # a new segment is empty
        put($counter, sprintf "%11d\n", $total);
        put($lock, "\n");                          # post
        say "perl: job $job, counter $total";
    }
}

my ($action, $name, $n) = @ARGV;
@ARGV == 3 && $action eq 'produce' || @ARGV == 2 && $action eq 'consume'
    or die "usage: $0 produce NAME N | consume NAME\n";
my $jobs    = open_object("mq\@max_messages=10,max_message_size=64/$name");
my $lock    = open_object("sem\@value=1/$name");
my $counter = open_object("shm/$name");
$action eq 'produce' ? produce($jobs, $n) : consume($jobs, $lock, $counter);
