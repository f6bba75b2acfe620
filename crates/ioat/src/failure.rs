use std::process::ExitCode;

/// Why a command did not do what it was asked. The message says what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A check failed, or the work broke off. Exit status 1.
    #[error("{0}")]
    Failed(String),
    /// The arguments do not make sense. Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// This machine cannot do it, as it is. Exit status 3.
    #[error("{0}")]
    Machine(String),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Machine(_) => 3,
        })
    }
}
