// Package whisper decides which throttled containers are worth telling the
// operator about, and tells it.
//
// Engine is pure: the sampler hands it every container once a second, and it
// answers with the events to send. Sender delivers them at least once and never
// blocks. Together: an event leaves within one sample (1 s) of the moment the
// threshold is crossed.
//
// How fast a threshold can be crossed is the kernel's arithmetic. The ratio is
// Δnr_throttled / Δnr_periods over the trailing window, and nr_periods counts only
// periods in which the bandwidth timer ran: an idle group's timer stops after at
// most one idle period (kernel/sched/fair.c, do_sched_cfs_period_timer). So a
// container that was quiet for an hour and is then throttled in each period stands
// at 100 % at once, and crosses when MinPeriods have elapsed: 2 s at the usual
// 100 ms period. One that was busy and unthrottled for the whole window must first
// outweigh its past: at a threshold of 50 % and a window of 60 s that takes 30 s.
// A container younger than the window is judged over its whole life, so that a
// start throttled in its first seconds is told in its first seconds.
package whisper
