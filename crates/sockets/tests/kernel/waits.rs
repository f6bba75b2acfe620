//! Calls that wait: how long, for how much, and what ends them.

use std::{
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sockets::{Interrupter, RecvFlags};

use crate::world::{Connection, Kernel, KernelConnection, OurConnection, Ours, World};

const ALL: RecvFlags = RecvFlags::WAITALL;
const NONE: RecvFlags = RecvFlags::empty();

/// Nothing here takes so long, unless a wake-up is lost.
const LOST: Duration = Duration::from_secs(10);

/// What a call gave: what it returned, with the bytes, or an error number.
type Outcome = Result<Vec<u8>, i32>;

fn recv(connection: &impl Connection, len: usize, flags: RecvFlags) -> Outcome {
    let mut buffer = vec![0; len];
    let len = connection.recv(&mut buffer, flags)?;
    buffer.truncate(len);
    Ok(buffer)
}

/// Runs `test` on both, which must give the same, and that is it.
fn both(expected: &[Outcome], test: impl Fn(&dyn Waits) -> Vec<Outcome>) {
    let kernel = Kernel::new().connect();
    assert_eq!(test(&kernel), expected, "the kernel");
    for ours in Ours::all() {
        let ours = ours.connect();
        assert_eq!(test(&ours), expected, "ours");
    }
}

/// A connection whose calls may wait.
trait Waits: Sync {
    fn connection(&self) -> &dyn DynConnection;

    /// Makes a receive call on another thread, runs `meanwhile` with what interrupts it, and returns
    /// what the call gave.
    fn recv_while(
        &self,
        len: usize,
        flags: RecvFlags,
        meanwhile: &mut dyn FnMut(&dyn Fn()),
    ) -> Outcome;
}

/// [`Connection`], as an object.
trait DynConnection: Sync {
    fn recv(&self, len: usize, flags: RecvFlags) -> Outcome;
    fn peer_send(&self, bytes: &[u8]);
    fn peer_send_urgent(&self, bytes: &[u8]);
    fn peer_shutdown(&self);
    fn peer_reset(&self);
    fn shutdown_read(&self);
    fn set_low_water(&self, bytes: usize);
    fn set_read_timeout(&self, timeout: Duration);
    fn settle(&self);
}

impl<C: Connection> DynConnection for C {
    fn recv(&self, len: usize, flags: RecvFlags) -> Outcome {
        recv(self, len, flags)
    }

    fn peer_send(&self, bytes: &[u8]) {
        assert_eq!(Connection::peer_send(self, bytes, false), Ok(bytes.len()));
    }

    fn peer_send_urgent(&self, bytes: &[u8]) {
        assert_eq!(Connection::peer_send(self, bytes, true), Ok(bytes.len()));
    }

    fn peer_shutdown(&self) {
        assert_eq!(Connection::peer_shutdown(self), Ok(0));
    }

    fn peer_reset(&self) {
        Connection::peer_reset(self);
    }

    fn shutdown_read(&self) {
        assert_eq!(self.shutdown(false), Ok(0));
    }

    fn set_low_water(&self, bytes: usize) {
        Connection::set_low_water(self, bytes);
    }

    fn set_read_timeout(&self, timeout: Duration) {
        Connection::set_read_timeout(self, Some(timeout));
    }

    fn settle(&self) {
        Connection::settle(self);
    }
}

impl Waits for KernelConnection {
    fn connection(&self) -> &dyn DynConnection {
        self
    }

    fn recv_while(
        &self,
        len: usize,
        flags: RecvFlags,
        meanwhile: &mut dyn FnMut(&dyn Fn()),
    ) -> Outcome {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            extern "C" fn nothing(_: libc::c_int) {}
            // SAFETY: zero is a valid `sigaction`: no flags, so that calls are not restarted.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = nothing as *const () as usize;
            // SAFETY: the handler does nothing.
            let result =
                unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
            assert_eq!(result, 0);
        });
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            // A scoped thread has no pthread handle; the thread tells its own.
            let (tell, told) = std::sync::mpsc::channel();
            let ended = &ended;
            let calling = scope.spawn(move || {
                // SAFETY: always possible.
                tell.send(unsafe { libc::pthread_self() }).unwrap();
                let outcome = recv(self, len, flags);
                ended.store(true, Ordering::SeqCst);
                outcome
            });
            let thread = told.recv().unwrap();
            meanwhile(&|| {
                // A signal that comes before the call is lost on it: again, until it has ended.
                let started = Instant::now();
                while !ended.load(Ordering::SeqCst) {
                    // SAFETY: the thread has not been joined.
                    unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                    thread::sleep(Duration::from_millis(1));
                    assert!(started.elapsed() < LOST, "signals do not end the call");
                }
            });
            calling.join().unwrap()
        })
    }
}

impl Waits for OurConnection {
    fn connection(&self) -> &dyn DynConnection {
        self
    }

    fn recv_while(
        &self,
        len: usize,
        flags: RecvFlags,
        meanwhile: &mut dyn FnMut(&dyn Fn()),
    ) -> Outcome {
        thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel::<Interrupter>();
            let calling = scope.spawn(move || {
                tell.send(self.stream().stack().interrupter()).unwrap();
                recv(self, len, flags)
            });
            let interrupter = told.recv().unwrap();
            meanwhile(&|| interrupter.interrupt());
            calling.join().unwrap()
        })
    }
}

fn ok(bytes: &[u8]) -> Outcome {
    Ok(bytes.to_vec())
}

const EINTR: Outcome = Err(4);
const EAGAIN: Outcome = Err(11);
const ECONNRESET: Outcome = Err(104);

#[test]
fn a_call_waits_for_the_first_bytes() {
    both(&[ok(b"abc"), ok(b"")], |world| {
        let connection = world.connection();
        let first = world.recv_while(10, NONE, &mut |_| connection.peer_send(b"abc"));
        let second = world.recv_while(10, NONE, &mut |_| connection.peer_shutdown());
        vec![first, second]
    });
}

#[test]
fn waitall_waits_for_all_of_them() {
    both(&[ok(b"abcdefghij"), ok(b"klm"), ok(b"")], |world| {
        let connection = world.connection();
        let first = world.recv_while(10, ALL, &mut |_| {
            for piece in [&b"abc"[..], b"d", b"efghijklm"] {
                connection.peer_send(piece);
                connection.settle();
            }
        });
        let second = world.recv_while(10, ALL, &mut |_| connection.peer_shutdown());
        vec![first, second, connection.recv(10, ALL)]
    });
}

#[test]
fn waitall_gives_what_it_has_before_an_error() {
    both(&[ok(b"abc"), ECONNRESET, ok(b"")], |world| {
        let connection = world.connection();
        let first = world.recv_while(10, ALL, &mut |_| {
            connection.peer_send(b"abc");
            connection.settle();
            connection.peer_reset();
        });
        connection.settle();
        vec![first, connection.recv(10, ALL), connection.recv(10, ALL)]
    });
}

#[test]
fn waitall_consumes_without_copying() {
    both(&[ok(&[0; 10]), ok(b"k")], |world| {
        let connection = world.connection();
        let first = world.recv_while(10, ALL | RecvFlags::TRUNC, &mut |_| {
            connection.peer_send(b"abcde");
            connection.settle();
            connection.peer_send(b"fghijk");
        });
        vec![first, connection.recv(10, NONE)]
    });
}

#[test]
fn waitall_looks_at_all_of_them() {
    both(&[ok(b"abcdef"), ok(b"abcdef")], |world| {
        let connection = world.connection();
        let first = world.recv_while(6, ALL | RecvFlags::PEEK, &mut |_| {
            connection.peer_send(b"abc");
            connection.settle();
            connection.peer_send(b"def");
        });
        vec![first, connection.recv(10, NONE)]
    });
}

#[test]
fn waitall_ends_at_the_urgent_mark() {
    both(&[ok(b"abc"), ok(b"!"), ok(b"def")], |world| {
        let connection = world.connection();
        let first = world.recv_while(10, ALL, &mut |_| {
            connection.peer_send(b"abc");
            connection.settle();
            connection.peer_send_urgent(b"!");
        });
        let urgent = connection.recv(1, RecvFlags::OOB);
        connection.peer_send(b"def");
        connection.settle();
        vec![first, urgent, connection.recv(3, ALL)]
    });
}

#[test]
fn dontwait_does_not_wait_even_for_all() {
    both(&[EAGAIN, ok(b"abc"), EAGAIN], |world| {
        let connection = world.connection();
        let dontwait = RecvFlags::DONTWAIT;
        let first = connection.recv(10, dontwait);
        connection.peer_send(b"abc");
        connection.settle();
        vec![first, connection.recv(10, dontwait | ALL), connection.recv(10, dontwait | ALL)]
    });
}

#[test]
fn a_timeout_ends_a_call_with_what_it_has() {
    both(&[EAGAIN, ok(b"abc"), EAGAIN], |world| {
        let connection = world.connection();
        connection.set_read_timeout(Duration::from_millis(30));
        let started = Instant::now();
        let first = connection.recv(10, NONE);
        assert!(started.elapsed() >= Duration::from_millis(25), "it waited as long as it was told");
        connection.peer_send(b"abc");
        connection.settle();
        vec![first, connection.recv(10, ALL), connection.recv(10, ALL)]
    });
}

#[test]
fn a_signal_ends_a_call_with_what_it_has() {
    both(&[EINTR, ok(b"abc"), EINTR, ok(b"def")], |world| {
        let connection = world.connection();
        let first = world.recv_while(10, NONE, &mut |interrupt| interrupt());
        connection.peer_send(b"abc");
        connection.settle();
        let second = world.recv_while(10, ALL, &mut |interrupt| interrupt());
        let third = world.recv_while(10, RecvFlags::PEEK, &mut |interrupt| interrupt());
        connection.peer_send(b"def");
        connection.settle();
        vec![first, second, third, connection.recv(10, NONE)]
    });
}

#[test]
fn the_low_water_mark_is_waited_for() {
    both(&[ok(b"abcdefgh"), ok(b"ij"), ok(b"")], |world| {
        let connection = world.connection();
        connection.set_low_water(5);
        let first = world.recv_while(10, NONE, &mut |_| {
            connection.peer_send(b"abc");
            connection.settle();
            // As many as the mark: Linux does not count what a call has taken already.
            connection.peer_send(b"defgh");
        });
        connection.peer_send(b"ij");
        let second = world.recv_while(10, NONE, &mut |_| connection.peer_shutdown());
        vec![first, second, connection.recv(10, NONE)]
    });
}

#[test]
fn a_shutdown_for_reading_ends_a_call() {
    both(&[ok(b"abc"), ok(b""), ok(b"late")], |world| {
        let connection = world.connection();
        let first = world.recv_while(10, ALL, &mut |_| {
            connection.peer_send(b"abc");
            connection.settle();
            connection.shutdown_read();
        });
        let second = connection.recv(10, NONE);
        connection.peer_send(b"late");
        connection.settle();
        vec![first, second, connection.recv(10, NONE)]
    });
}

#[test]
fn a_call_for_nothing_waits_for_something() {
    both(&[ok(b""), ok(b"abc")], |world| {
        let connection = world.connection();
        let first = world.recv_while(0, NONE, &mut |_| connection.peer_send(b"abc"));
        vec![first, connection.recv(10, NONE)]
    });
}
