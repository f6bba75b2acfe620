use std::{io, time::Duration};

use rustix::{
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

/// The CPU time that the calling thread has used so far, in user and kernel mode.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // The clock starts at zero with the thread: neither part is negative.
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The CPUs that the calling thread may run on, in ascending order.
///
/// # Errors
///
/// What the system says.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Lets the calling thread run on this CPU only.
///
/// # Errors
///
/// The CPU does not exist, or is not among those that this process may use.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// How often the calling thread has lost its CPU to another thread although it wanted to go on.
///
/// # Errors
///
/// There is no `/proc`, or it does not say.
pub fn thread_preemptions() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:")?.trim().parse().ok())
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_cpu_time_and_waiting_does_not() {
        let start = thread_cpu_time();
        let mut sum = 0_u64;
        while thread_cpu_time() == start {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(thread_cpu_time() > start);
    }

    #[test]
    fn preemptions_are_counted() {
        std::thread::spawn(|| {
            pin_to_cpu(allowed_cpus().unwrap()[0]).unwrap();
            let start = thread_preemptions().unwrap();
            // Another thread that wants the same CPU gets it sooner or later.
            let done = std::sync::atomic::AtomicBool::new(false);
            let spin = || std::hint::spin_loop();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        spin();
                    }
                });
                while thread_preemptions().unwrap() == start {
                    spin();
                }
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            });
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_refused() {
        assert!(pin_to_cpu(usize::MAX).is_err());
        assert!(pin_to_cpu(CpuSet::MAX_CPU - 1).is_err());
    }
}
