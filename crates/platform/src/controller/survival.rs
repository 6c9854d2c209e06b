//! Tasks of one deploy that a panic does not end.

use super::Task;

impl Task {
    /// What a panic does not end, of this deploy: `the task of shop/production`.
    pub(super) fn survive<F, R>(
        &self,
        name: &str,
        run: R,
    ) -> impl Future<Output = ()> + Send + use<F, R>
    where
        F: Future<Output = ()> + Send + 'static,
        R: Fn(Self) -> F + Send + 'static,
    {
        let name = format!("{name} of {}", self.controller.place.path);
        let inner = &self.platform.0;
        let (panics, ending) = (inner.panics.clone(), inner.ending.clone());
        let (task, teller) = (self.clone(), self.clone());
        panics.survive(name, ending, move || run(task.clone()), move |fault| teller.say(fault))
    }

    pub(super) fn keep_up<F>(&self, name: &str, run: impl Fn(Self) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.platform.0.tasks.spawn(self.survive(name, run));
    }
}
