//! A server on a thread of the test.

use std::{
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{self, Receiver},
    },
    thread::{self, JoinHandle},
};

use ioat_model::{
    Config,
    vfio_user::{Event, Server},
};

use crate::client::{Client, SOON};

/// A path for a socket that no other test has.
pub(crate) fn socket_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only the number matters.
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    // Not the target folder: a path to a socket must be short.
    std::env::temp_dir().join(format!("ioat-model-{}-{number}", std::process::id()))
}

/// A server that runs until it is dropped.
pub(crate) struct Served {
    pub(crate) path: PathBuf,
    events: Receiver<Event>,
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub(crate) fn start(config: Config) -> Self {
        let path = socket_path();
        let server = Server::bind(&path, config).expect("nobody else listens there");
        let (stop, stopped) = UnixStream::pair().expect("sockets");
        let (sender, events) = mpsc::channel();
        let thread = thread::spawn(move || {
            // A test that does not look at the events may have ended.
            let mut observer = |event| drop(sender.send(event));
            server.run(stopped.as_fd(), &mut observer).expect("clients do not end the server");
        });
        Self { path, events, stop, thread: Some(thread) }
    }

    /// A device with one channel.
    pub(crate) fn simple() -> Self {
        Self::start(Config::default())
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.path)
    }

    /// A client that has agreed on the version.
    pub(crate) fn client(&self) -> Client {
        let mut client = self.connect();
        client.agree();
        client
    }

    /// Waits until a connection is over; its number of refused requests, and why it ended.
    pub(crate) fn wait_for_end(&self) -> (u64, String) {
        loop {
            let event = self.events.recv_timeout(SOON).expect("the connection ends");
            if let Event::Disconnected { refused, reason, .. } = event {
                return (refused, reason);
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It is readable when its other end is closed; shutting down does that.
        let _ = self.stop.shutdown(std::net::Shutdown::Both);
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.expect("joined once").expect("the server has not panicked");
            assert!(!self.path.exists(), "the socket is removed");
        }
    }
}
