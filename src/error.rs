//! One error type with six kinds, each named for what the caller does next.
//!
//! | kind | the caller | retryable |
//! |---|---|---|
//! | [`Kind::Invalid`] | mends the input (file, configuration, arguments) | no |
//! | [`Kind::NotFound`] | names something that exists | no |
//! | [`Kind::Conflict`] | plans again: somebody else won | yes, from the plan on |
//! | [`Kind::Unavailable`] | tries again later | yes |
//! | [`Kind::Corrupt`] | stops and looks: stored bytes contradict themselves | no |
//! | [`Kind::Internal`] | reports a bug | no |
//!
//! A new kind needs a different reaction, not a different message (SlateDB RFC 0007).
//! Message grammar: lower case, no full stop, values in backticks, expected against found; the repair goes into
//! [`Error::hint`] and prints after a blank line as `hint: …`.

use std::fmt;

/// What the caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The input is wrong: mend it.
    Invalid,
    /// The thing named does not exist.
    NotFound,
    /// Somebody else changed it first: plan again.
    Conflict,
    /// A service did not answer in time: retry.
    Unavailable,
    /// Stored bytes contradict themselves: stop and look.
    Corrupt,
    /// A bug in regraft: report it.
    Internal,
}

impl Kind {
    /// Every kind, in the order of the table above; the Python exception tree is tested against it.
    pub const ALL: [Self; 6] =
        [Self::Invalid, Self::NotFound, Self::Conflict, Self::Unavailable, Self::Corrupt, Self::Internal];

    /// Whether the same call may succeed when it is made again.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::Unavailable)
    }

    /// The name used in Python, JSON reports and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal",
        }
    }
}

/// An error with its kind, the chain of what was being done, and a repair where one is known.
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: Kind,
    message: String,
    hint: Option<String>,
    /// Innermost first.
    context: Vec<String>,
}

/// The result type of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; prefer the constructor named after the kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hint: None, context: Vec::new() }))
    }

    /// The input is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// The thing named does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Somebody else won.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// A service did not answer.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// Stored bytes contradict themselves.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    /// A bug in regraft.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Says what to do about it; a later hint replaces an earlier one.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Says what was being done, outermost last: `while reading ‹url›`.
    #[must_use]
    pub fn context(mut self, what: impl Into<String>) -> Self {
        self.0.context.push(what.into());
        self
    }

    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether the same call may succeed when it is made again.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.0.kind.retryable()
    }

    /// The message with its context, without the hint.
    #[must_use]
    pub fn message(&self) -> String {
        let mut text = String::new();
        for what in self.0.context.iter().rev() {
            text.push_str(what);
            text.push_str(": ");
        }
        text.push_str(&self.0.message);
        text
    }

    /// The repair, where one is known.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message())?;
        if let Some(hint) = &self.0.hint {
            write!(formatter, "\n\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Adds context to a result on its way up.
pub trait Context<T> {
    /// Says what was being done; evaluated only on failure.
    ///
    /// # Errors
    /// The error that was there, with `what` added.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.context(what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_reads_from_the_outside_in_and_ends_with_the_hint() {
        let error = Error::invalid("expected `5` rows, found `4`")
            .context("variable `sst`")
            .context("file:///a.nc")
            .hint("write the file again");
        assert_eq!(
            error.to_string(),
            "file:///a.nc: variable `sst`: expected `5` rows, found `4`\n\nhint: write the file again"
        );
        assert!(!error.retryable());
    }
}
