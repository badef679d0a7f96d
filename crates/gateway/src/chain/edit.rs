//! Plugins that change while the others stay.

use std::collections::BTreeSet;

use sallyport_model::entities::{self, Foreign};
use uuid::Uuid;

use super::scope::{caller_of, scopes};
use super::{Handlers, Index, Placed, Problems, Ready};
use crate::closed::Closed;

/// What changes of plugins have an effect on, besides what is for all.
#[derive(Default)]
pub(crate) struct Touched {
    pub(crate) routes: BTreeSet<Uuid>,
    pub(crate) services: BTreeSet<Uuid>,
    /// Routes that are closed, or were, and perhaps not there.
    pub(crate) closed_routes: BTreeSet<Uuid>,
}

impl Touched {
    pub(super) fn close(&mut self, closed: &Closed) {
        self.closed_routes.extend(closed.route);
        self.services.extend(closed.service);
    }
}

impl Handlers {
    /// These handlers with some plugins that are new or other than before, and some gone, and
    /// with scopes that are `closed` and `opened`; `None` if two have one scope, which a look at
    /// the whole tells more about.
    ///
    /// # Errors
    /// Every plugin that cannot be used, as its id, name and the reason.
    pub(crate) fn edited(
        &self,
        plugins: &[entities::Plugin],
        gone: &[Uuid],
        (closed, opened): (&[Closed], &[Closed]),
    ) -> Option<Result<(Handlers, Touched), Problems>> {
        let mut next = self.clone();
        let (mut touched, mut problems) = (Touched::default(), Vec::new());
        for opened in opened {
            if !next.open(opened, &mut touched) {
                return None;
            }
        }
        for id in gone {
            next.displace(*id, &mut touched);
        }
        for plugin in plugins {
            let (at, content, ready) = match next.ready(plugin, self) {
                Ok(made) => made,
                Err(reason) => {
                    problems.push((plugin.id, plugin.name.clone(), reason));
                    continue;
                }
            };
            let caller = caller_of(plugin);
            let before = next.placed.get(&plugin.id);
            let same =
                before.is_some_and(|it| it.caller == caller && it.scopes == scopes(plugin, at));
            if let Some(index) = before.filter(|_| same).map(|it| it.index) {
                next.exchange(plugin.id, index, content, ready);
                continue;
            }
            next.displace(plugin.id, &mut touched);
            if !next.place(plugin, at, content, ready) {
                return None;
            }
            touched.routes.extend(plugin.route.map(|Foreign(id)| id));
            touched
                .services
                .extend(plugin.service.map(|Foreign(id)| id));
        }
        for closed in closed {
            next.close(closed);
            touched.close(closed);
        }
        Some(match problems.is_empty() {
            true => Ok((next, touched)),
            false => Err(problems),
        })
    }

    /// Puts a plugin in the place of itself.
    pub(super) fn exchange(&mut self, id: Uuid, index: Index, content: [u8; 16], ready: Ready) {
        if let Some(Some(old)) = self.all.get(index as usize) {
            self.wishes.count(&*old.handler, false);
        }
        self.wishes.count(&*ready.handler, true);
        self.all.set(index as usize, Some(ready));
        if let Some(placed) = self.placed.get(&id).cloned() {
            self.placed.insert(id, Placed { content, ..placed });
        }
    }

    /// Takes a plugin out.
    fn displace(&mut self, id: Uuid, touched: &mut Touched) {
        let Some(placed) = self.placed.remove(&id) else {
            return;
        };
        let index = placed.index;
        for scope in &placed.scopes {
            self.take_out(scope, placed.caller, index);
        }
        if let Some(scope) = placed.scopes.first() {
            touched.routes.extend(scope.route);
            touched.services.extend(scope.service);
            for id in [scope.route, scope.service].into_iter().flatten() {
                self.count_own(id, false);
            }
        }
        self.free(index);
    }
}
