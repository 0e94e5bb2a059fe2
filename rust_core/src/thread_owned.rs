//! Something that may not leave its thread, on a thread of its own.
//!
//! Why: the exchange model's parts are bound to the thread that made them, whoever drives a session
//! or the paper exchange is not; feed, dispatcher and reconciler of a live process are three.
//!
//! Invariants: tasks run one at a time, in the order in which they came; dropping it ends the thread.
//!
//! It knows nothing of what it holds.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

type Task<T> = Box<dyn FnOnce(&mut T) + Send>;

/// The thread is gone: it could not be started, or has panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the thread has ended unexpectedly")]
pub struct ThreadGone;

/// A value on a thread of its own.
#[derive(Debug)]
pub struct ThreadOwned<T> {
    tasks: Option<Sender<Task<T>>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: 'static> ThreadOwned<T> {
    /// Makes the value on its thread.
    ///
    /// # Errors
    /// What `make` says, or [`ThreadGone`] in its place when there is no thread to be had.
    pub fn start<E: From<ThreadGone> + Send + 'static>(
        name: &str,
        make: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<Self, E> {
        let (tasks, inbox) = channel::<Task<T>>();
        let (started, outcome) = channel();
        let body = move || {
            let mut value = match make() {
                Ok(value) => value,
                Err(error) => return drop(started.send(Err(error))),
            };
            drop(started.send(Ok(())));
            for task in inbox {
                task(&mut value);
            }
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|_| E::from(ThreadGone))?;
        outcome.recv().unwrap_or(Err(E::from(ThreadGone)))?;
        Ok(Self {
            tasks: Some(tasks),
            thread: Some(thread),
        })
    }

    /// Runs `task` on the value and waits for its result.
    ///
    /// # Errors
    /// [`ThreadGone`] when the thread has panicked.
    pub fn call<R: Send + 'static>(
        &self,
        task: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, ThreadGone> {
        let (answer, answered) = channel();
        let boxed: Task<T> = Box::new(move |value| drop(answer.send(task(value))));
        self.tasks
            .as_ref()
            .ok_or(ThreadGone)?
            .send(boxed)
            .map_err(|_| ThreadGone)?;
        answered.recv().map_err(|_| ThreadGone)
    }
}

impl<T> Drop for ThreadOwned<T> {
    fn drop(&mut self) {
        // Closing the channel ends the loop.
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
