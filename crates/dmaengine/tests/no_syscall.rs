//! No system call is made to submit, to ring the doorbell and to poll.
//!
//! Each case is a process of its own: this test once more, in which the thread that uses the channel
//! gives itself a seccomp filter first. From then on any system call kills the process, but that which
//! ends it, and reading the clock: on nearly all machines that is none.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use dmaengine::{
    Channel, CpuDevice, DmaDevice, Fallback, FaultPlan, Faults, Queue, Split, Status,
    ThreadsDevice, ThreadsOptions,
};

/// Names the case that a child is to run.
const CASE: &str = "DMAENGINE_TEST_SYSCALLS";
const BATCHES: usize = 64;
const BATCH: usize = 32;
/// Shorter copies are not split.
const SPLIT_FROM: usize = 16 << 10;

/// Opens an engine's channel.
type Request = fn() -> Channel;
/// Puts a layer over one.
type Over = fn(Channel) -> Channel;

/// What a thread may still do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// End the process.
    End,
    /// And wake another thread, by a futex: what a doorbell does that meets a copy thread asleep.
    Wake,
}

/// Kills the process at any system call of this thread but those.
fn forbid_system_calls(allowed: Allowed) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // Offsets in `struct seccomp_data`: the number, and the second argument's low half.
    const NUMBER: u32 = 0;
    const OPERATION: u32 = if cfg!(target_endian = "little") { 24 } else { 28 };
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let futex = if allowed == Allowed::Wake { libc::SYS_futex } else { libc::SYS_exit_group };
    let command = !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) as u32;
    let mut steps = [
        step(LOAD, NUMBER, 0, 0),
        step(IS, libc::SYS_exit_group as u32, 5, 0),
        step(IS, libc::SYS_clock_gettime as u32, 4, 0),
        step(IS, futex as u32, 0, 4),
        step(LOAD, OPERATION, 0, 0),
        step(AND, command, 0, 0),
        step(IS, libc::FUTEX_WAKE as u32, 0, 1),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which outlives the call, and touches no other memory.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(set, "no seccomp filter: {}", std::io::Error::last_os_error());
}

/// What a child ends with in which all was well: no child that did nothing does.
const GOOD: i32 = 71;

/// Ends the process, whatever its other threads do.
fn end(is_good: bool) -> ! {
    // SAFETY: it does nothing but the system call.
    unsafe { libc::_exit(if is_good { GOOD } else { 1 }) }
}

/// Copies by the thousand; whether all of them succeeded. Where it says so, without system calls.
fn use_channel(channel: Channel, len: usize, allowed: Allowed) -> bool {
    let mut queue = Queue::new(channel);
    let mut idle: Vec<_> = (0..BATCH).map(|_| (vec![1u8; len], vec![0u8; len])).collect();
    let mut is_good = true;
    let mut batch = || {
        while let Some((source, target)) = idle.pop() {
            is_good &= queue.copy(source, target, ()).is_ok();
        }
        queue.issue_pending();
        while !queue.is_idle() {
            queue.poll(|done| {
                is_good &= done.status == Status::Success;
                idle.push((done.source, done.target));
            });
            std::hint::spin_loop();
        }
    };
    // The first time through, lists grow and pages are touched.
    (0..BATCHES).for_each(|_| batch());
    forbid_system_calls(allowed);
    (0..BATCHES).for_each(|_| batch());
    end(is_good)
}

/// Runs `body` in a child, which is the test `test` once more, and returns how that ended.
fn in_child(test: &str, case: &str, body: impl FnOnce()) -> Option<ExitStatus> {
    if let Some(asked) = std::env::var_os(CASE) {
        if asked == case {
            body();
            unreachable!("it ends the process");
        }
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(CASE, case).stdout(Stdio::null());
    Some(command.status().unwrap())
}

fn cpu() -> Channel {
    CpuDevice::new(1).request_channel(0).unwrap().into()
}

/// A copy thread that stays awake for as long as it can.
fn threads() -> Channel {
    let options = ThreadsOptions { spin: Duration::from_secs(60), ..ThreadsOptions::default() };
    ThreadsDevice::with_options(options).request_channel(0).unwrap().into()
}

#[test]
fn no_system_call_is_made() {
    let engines: [(&str, Allowed, Request); 2] =
        [("cpu", Allowed::End, cpu), ("threads", Allowed::Wake, threads)];
    let layers: [(&str, usize, Over); 5] = [
        ("nothing", 64, |channel| channel),
        ("Fallback", 64, |channel| channel.layered(&Fallback::default())),
        ("Split", 64, |channel| channel.layered(&Split::new(SPLIT_FROM))),
        ("Split", SPLIT_FROM, |channel| channel.layered(&Split::new(SPLIT_FROM))),
        ("Faults", 64, |channel| channel.layered(&Faults::new(FaultPlan::default()))),
    ];
    for (engine, allowed, request) in engines {
        for (layer, len, over) in layers {
            let case = format!("{layer} over {engine}, {len} bytes");
            let ended = in_child("no_system_call_is_made", &case, || {
                use_channel(over(request()), len, allowed);
            });
            if let Some(status) = ended {
                assert_eq!(status.code(), Some(GOOD), "{case}: {status}");
            }
        }
    }
}

/// The filter lets through what it is to let through, and nothing else.
#[test]
fn a_system_call_would_be_seen() {
    /// A futex call that neither waits nor wakes anybody: the value is another.
    fn futex(operation: libc::c_int) {
        let word = 0u32;
        // SAFETY: the kernel reads the word, which outlives the call.
        unsafe { libc::syscall(libc::SYS_futex, &raw const word, operation, 1, 0) };
    }
    type Call = fn();
    let cases: [(&str, Allowed, bool, Call); 6] = [
        ("nothing", Allowed::End, true, || ()),
        ("yield", Allowed::End, false, std::thread::yield_now),
        ("yield, with wakes", Allowed::Wake, false, std::thread::yield_now),
        ("wake", Allowed::End, false, || futex(libc::FUTEX_WAKE)),
        ("wake, with wakes", Allowed::Wake, true, || {
            futex(libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG);
        }),
        ("wait, with wakes", Allowed::Wake, false, || futex(libc::FUTEX_WAIT)),
    ];
    for (case, allowed, lives, call) in cases {
        let ended = in_child("a_system_call_would_be_seen", case, || {
            forbid_system_calls(allowed);
            call();
            end(true)
        });
        if let Some(status) = ended {
            let expected = if lives { (Some(GOOD), None) } else { (None, Some(libc::SIGSYS)) };
            assert_eq!((status.code(), status.signal()), expected, "{case}");
        }
    }
}
