//! Operations that the engine has had for so long that the ring came round to them.

use crate::{Completion, Cookie, FallbackCause, software::Descriptor};

/// Operations whose slot another needs, in the order of their submission. There are few, and rarely
/// any: the engine has ended more than a ring's worth of later ones.
#[derive(Debug, Default)]
pub(super) struct Aside {
    in_engine: Vec<Kept>,
    on_cpu: Vec<(Kept, FallbackCause)>,
}

#[derive(Debug)]
pub(super) struct Kept {
    /// The engine's cookie.
    engines: Cookie,
    /// The client's.
    pub(super) cookie: Cookie,
    pub(super) descriptor: Descriptor,
}

impl Aside {
    /// Keeps an operation that the engine has.
    pub(super) fn put(&mut self, engines: Cookie, cookie: Cookie, descriptor: Descriptor) {
        self.in_engine.push(Kept { engines, cookie, descriptor });
    }

    /// The oldest that the engine has, and its length.
    pub(super) fn oldest(&self) -> Option<(Cookie, usize)> {
        self.in_engine.first().map(|kept| (kept.engines, kept.descriptor.len()))
    }

    /// Ends the operation that `completion` names, and gives back the client's cookie and its
    /// length. If it was not done, it is the CPU's.
    pub(super) fn end(
        &mut self,
        completion: &Completion,
        cause: FallbackCause,
    ) -> Option<(Cookie, usize)> {
        let index = self.in_engine.iter().position(|kept| kept.engines == completion.cookie)?;
        let kept = self.in_engine.remove(index);
        let ended = (kept.cookie, kept.descriptor.len());
        if !completion.status.is_done() {
            self.on_cpu.push((kept, cause));
        }
        Some(ended)
    }

    /// Whether the CPU has nothing to do.
    #[inline]
    pub(super) const fn is_settled(&self) -> bool {
        self.on_cpu.is_empty()
    }

    /// What the CPU is to do next. All of it was issued.
    pub(super) fn next_on_cpu(&mut self) -> Option<(Kept, FallbackCause)> {
        self.on_cpu.pop()
    }

    /// Gives up one, and tells its cookie.
    pub(super) fn abort(&mut self) -> Option<Cookie> {
        let kept = self.in_engine.pop().or_else(|| Some(self.on_cpu.pop()?.0));
        kept.map(|kept| kept.cookie)
    }
}
