//! What the system tells about this process: its memory, and what its threads do.

use std::{collections::BTreeMap, fs, io, thread, time::Duration};

use rustix::thread::gettid;

/// In such a time a thread must use no processor to be quiet.
const WINDOW: Duration = Duration::from_millis(200);

/// After so many windows, one of which might be any thread's, one that had none spins.
const WINDOWS: u32 = 100;

/// Threads and open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Census {
    threads: usize,
    files: usize,
}

impl Census {
    pub(super) fn take() -> io::Result<Self> {
        let count = |path| fs::read_dir(path).map(Iterator::count);
        // What else is read must be there too.
        anonymous_bytes()?;
        usage()?;
        Ok(Self { threads: count("/proc/self/task")?, files: count("/proc/self/fd")? })
    }

    /// A thread that has been joined is in `/proc` for a moment more.
    pub(super) fn check_that_nothing_is_left(&self) -> Result<(), String> {
        let mut now = *self;
        for _ in 0..WINDOWS {
            now = Self::take().map_err(|error| error.to_string())?;
            if now == *self {
                return Ok(());
            }
            thread::sleep(WINDOW / 10);
        }
        Err(format!(
            "{} threads and {} files are open, {} and {} were before",
            now.threads, now.files, self.threads, self.files
        ))
    }
}

/// Heap and stacks, in bytes, without what the allocator keeps though it need not.
pub(super) fn anonymous_bytes() -> io::Result<u64> {
    trim();
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Other C libraries have no such thing, and keep less.
#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: gives free memory back to the system; all of its own data is under its locks.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

/// What a thread has used.
#[derive(Debug, PartialEq, Eq)]
struct Usage {
    /// In nanoseconds, as far as the scheduler has counted: while it runs, it counts late.
    cpu_ns: u64,
    runs: bool,
    name: String,
}

/// Of each other thread of this process, by its number.
fn usage() -> io::Result<BTreeMap<i32, Usage>> {
    let mut usage = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/task")? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(number) = number.filter(|number| *number != gettid().as_raw_nonzero().get())
        else {
            continue;
        };
        let read = |file| fs::read_to_string(path.join(file));
        // It may end meanwhile.
        let (Ok(schedstat), Ok(stat)) = (read("schedstat"), read("stat")) else { continue };
        let cpu_ns = schedstat.split(' ').next().and_then(|time| time.parse().ok());
        // The name is in brackets, and may have some itself.
        let parts = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
        let (Some(cpu_ns), Some((name, rest))) = (cpu_ns, parts) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let runs = rest.trim_start().starts_with('R');
        usage.insert(number, Usage { cpu_ns, runs, name: name.to_owned() });
    }
    Ok(usage)
}

/// Waits until each other thread has been seen asleep, and without any processor time, for a window.
/// Fails with the names of those that never were.
pub(super) fn wait_until_quiet() -> Result<(), String> {
    let usage = || usage().map_err(|error| format!("/proc/self/task: {error}"));
    let mut before = usage()?;
    let mut busy: BTreeMap<i32, String> =
        before.iter().map(|(number, usage)| (*number, usage.name.clone())).collect();
    for _ in 0..WINDOWS {
        if busy.is_empty() {
            return Ok(());
        }
        thread::sleep(WINDOW);
        let now = usage()?;
        busy.retain(|number, _| match (before.get(number), now.get(number)) {
            (Some(before), Some(now)) => before != now || now.runs,
            // One that has ended does not spin.
            _ => false,
        });
        before = now;
    }
    let names: Vec<String> = busy.into_values().collect();
    Err(format!("nothing happens, and these threads work: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    };

    /// The threads with this name, of which the kernel knows 15 bytes.
    fn named(name: &str) -> Vec<Usage> {
        usage().unwrap().into_values().filter(|usage| usage.name == name).collect()
    }

    #[test]
    fn what_works_and_what_sleeps_is_seen() {
        let stop = AtomicBool::new(false);
        let (tell, told) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
            let asleep = move || assert!(told.recv().is_err());
            spawn("asleep).(").spawn_scoped(scope, asleep).unwrap();
            spawn("spins")
                .spawn_scoped(scope, || {
                    // Relaxed: it is to be seen some time.
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                })
                .unwrap();
            // As soon as they are what they are called.
            while named("asleep).(").first().is_none_or(|usage| usage.runs) {
                thread::yield_now();
            }
            let before = (named("asleep).("), named("spins"));
            while named("spins").first().map(|usage| usage.cpu_ns)
                == before.1.first().map(|usage| usage.cpu_ns)
            {
                thread::yield_now();
            }
            assert_eq!(named("asleep).("), before.0);
            stop.store(true, Ordering::Relaxed);
            drop(tell);
        });
    }

    #[test]
    fn memory_that_is_used_is_counted() {
        let before = anonymous_bytes().unwrap();
        let used = vec![1_u8; 64 << 20];
        assert!(anonymous_bytes().unwrap() >= before + (32 << 20), "{}", used[77]);
    }
}
