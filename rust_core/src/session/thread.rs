//! A paper session on a thread of its own, for callers that may not hold it.
//!
//! Why: the venue's parts are bound to the thread that made them; whoever drives the session is not.
//!
//! Invariants: tasks run one at a time, in the order in which they came; dropping it ends the thread.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use super::{PaperSession, SessionError, SessionSetup};

type Task = Box<dyn FnOnce(&mut PaperSession) + Send>;

/// A session on a thread of its own: the exchange model may not move between threads, its owner
/// may.
#[derive(Debug)]
pub struct SessionThread {
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl SessionThread {
    /// Starts a session.
    ///
    /// # Errors
    /// As [`PaperSession::new`]; [`SessionError::ThreadGone`] when there is no thread to be had.
    pub fn start(setup: SessionSetup) -> Result<Self, SessionError> {
        let (tasks, inbox) = channel::<Task>();
        let (started, outcome) = channel();
        let body = move || {
            let mut session = match PaperSession::new(setup) {
                Ok(session) => session,
                Err(error) => return drop(started.send(Err(error))),
            };
            drop(started.send(Ok(())));
            for task in inbox {
                task(&mut session);
            }
        };
        let thread = std::thread::Builder::new()
            .name("paper-session".to_owned())
            .spawn(body)
            .map_err(|_| SessionError::ThreadGone)?;
        outcome.recv().unwrap_or(Err(SessionError::ThreadGone))?;
        Ok(Self {
            tasks: Some(tasks),
            thread: Some(thread),
        })
    }

    /// Runs `task` on the session and waits for its result.
    ///
    /// # Errors
    /// The task's own, or [`SessionError::ThreadGone`] when the thread has panicked.
    pub fn call<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut PaperSession) -> Result<T, SessionError> + Send + 'static,
    ) -> Result<T, SessionError> {
        let (answer, answered) = channel();
        let boxed: Task = Box::new(move |session| drop(answer.send(task(session))));
        self.tasks
            .as_ref()
            .ok_or(SessionError::ThreadGone)?
            .send(boxed)
            .map_err(|_| SessionError::ThreadGone)?;
        answered.recv().unwrap_or(Err(SessionError::ThreadGone))
    }
}

impl Drop for SessionThread {
    fn drop(&mut self) {
        // Closing the channel ends the loop; the writers sync what they hold when they drop.
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
