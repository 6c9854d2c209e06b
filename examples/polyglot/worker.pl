# Takes a piece of work every few seconds, and finishes the one in hand before it stops.
use strict;
use warnings;

$| = 1;    # each line leaves at once
my $pause = $ENV{WORKER_SECONDS} // 5;
my $stop  = 0;
$SIG{TERM} = sub { $stop = 1 };

my $done = 0;
until ($stop) {
    my $sum = 0;
    $sum += $_ for 1 .. 100_000;
    $done++;
    print "work=$done sum=$sum\n";
    select(undef, undef, undef, $pause) unless $stop;    # a signal ends the wait
}
print "stopped after $done\n";
