//! What answers 503 in the place of plugins that were refused.

use std::sync::Arc;

use super::edit::Touched;
use super::scope::{Scope, Who, subsystems, who};
use super::{Handlers, Index, Ready, Shut};
use crate::closed::{Answers503, Closed};

impl Handlers {
    /// What is closed, each as often as it was asked for.
    pub(crate) fn closed(&self) -> impl Iterator<Item = &Closed> {
        let times = |shut: &Shut| shut.count as usize;
        let all = self.closed.iter();
        all.flat_map(move |(closed, shut)| std::iter::repeat_n(closed, times(shut)))
    }

    /// Closes a scope, in front of the plugin that is there.
    pub(super) fn close(&mut self, closed: &Closed) {
        if let Some(shut) = self.closed.get(closed).cloned() {
            let count = shut.count + 1;
            self.closed.insert(closed.clone(), Shut { count, ..shut });
            return;
        }
        let index = self.push(Ready {
            handler: Arc::new(Answers503),
            name: "closed",
        });
        let mut covers = false;
        let (scopes, caller) = self.scopes_of(closed);
        for scope in scopes {
            covers |= !self.put(scope, caller, index);
        }
        for id in [closed.route, closed.service].into_iter().flatten() {
            self.count_own(id, true);
        }
        let count = 1;
        let shut = Shut {
            index,
            count,
            covers,
        };
        self.closed.insert(closed.clone(), shut);
    }

    /// Opens a scope, unless something else closes it too; `false` if nobody knows what comes to
    /// light.
    pub(super) fn open(&mut self, closed: &Closed, touched: &mut Touched) -> bool {
        let Some(shut) = self.closed.remove(closed) else {
            return false;
        };
        if shut.count > 1 {
            let count = shut.count - 1;
            self.closed.insert(closed.clone(), Shut { count, ..shut });
            return true;
        }
        let (scopes, caller) = self.scopes_of(closed);
        for scope in scopes {
            self.take_out(&scope, caller, shut.index);
        }
        touched.close(closed);
        for id in [closed.route, closed.service].into_iter().flatten() {
            self.count_own(id, false);
        }
        self.free(shut.index);
        !shut.covers
    }

    fn scopes_of(&mut self, closed: &Closed) -> (Vec<Scope>, Option<Who>) {
        let plugin = Arc::make_mut(&mut self.places).of(closed.plugin.as_deref());
        let scope = |stream| Scope {
            plugin,
            route: closed.route,
            service: closed.service,
            stream,
        };
        let scopes = subsystems(&closed.protocols, true).map(scope).collect();
        (scopes, who(closed.consumer, closed.consumer_group))
    }

    /// Takes what has this index out of a scope; others that stand there stay.
    pub(super) fn take_out(&mut self, scope: &Scope, caller: Option<Who>, index: Index) {
        let (map, caller) = match caller {
            None => {
                if self.by_scope.get(scope) == Some(&index) {
                    self.by_scope.remove(scope);
                }
                return;
            }
            Some(Who::Consumer(id)) => (&mut self.by_consumer, id),
            Some(Who::Group(id)) => (&mut self.by_group, id),
        };
        if let Some(mut callers) = map.remove(scope) {
            if callers.get(&caller) == Some(&index) {
                Arc::make_mut(&mut callers).remove(&caller);
            }
            if !callers.is_empty() {
                map.insert(*scope, callers);
            }
        }
    }

    /// Lets go of what has this index.
    pub(super) fn free(&mut self, index: Index) {
        if let Some(Some(old)) = self.all.get(index as usize) {
            self.wishes.count(&*old.handler, false);
        }
        self.all.set(index as usize, None);
        if self.free.len() < super::FREE_MAX {
            self.free.push(index);
        }
    }
}
