//! The one table of paths: what each needs, takes and gives, and who answers it.
//!
//! The router, the check of roles, the OpenAPI document and the table of roles in the docs are all
//! made from [`Route`]s, so a path that stands in none of them cannot be served.

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;

use crate::app::App;
use crate::identity::{Needs, authorize};

/// One method of one path.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// With names of parameters in braces, such as `/v3/teams/{team}`.
    pub(crate) path: String,
    /// What a caller must be allowed to do.
    pub(crate) needs: Needs,
    /// What it does, in a few words.
    pub(crate) summary: &'static str,
    /// Names of the query arguments.
    pub(crate) query: &'static [&'static str],
    /// The schema of the body, by its name in the OpenAPI document.
    pub(crate) takes: Option<String>,
    /// Status of success, and the schema of the answer.
    pub(crate) gives: (u16, Option<String>),
    /// Who answers; a row without one is answered by a router over many paths.
    handler: Option<MethodRouter<App>>,
}

impl Route {
    fn new<H, T>(
        filter: MethodFilter,
        method: Method,
        path: impl Into<String>,
        needs: Needs,
        summary: &'static str,
        handler: H,
    ) -> Route
    where
        H: Handler<T, App>,
        T: 'static,
    {
        Route {
            method,
            path: path.into(),
            needs,
            summary,
            query: &[],
            takes: None,
            gives: (200, None),
            handler: Some(on(filter, handler)),
        }
    }

    /// A row for a path that a router over many paths answers, with the same check.
    pub(crate) fn described(
        method: Method,
        path: String,
        needs: Needs,
        summary: &'static str,
    ) -> Route {
        Route {
            method,
            path,
            needs,
            summary,
            query: &[],
            takes: None,
            gives: (200, None),
            handler: None,
        }
    }

    pub(crate) fn get<H, T>(
        path: impl Into<String>,
        needs: Needs,
        summary: &'static str,
        handler: H,
    ) -> Route
    where
        H: Handler<T, App>,
        T: 'static,
    {
        Route::new(
            MethodFilter::GET,
            Method::GET,
            path,
            needs,
            summary,
            handler,
        )
    }

    /// Creates something: 201.
    pub(crate) fn post<H, T>(
        path: impl Into<String>,
        needs: Needs,
        summary: &'static str,
        handler: H,
    ) -> Route
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let (filter, method) = (MethodFilter::POST, Method::POST);
        let route = Route::new(filter, method, path, needs, summary, handler);
        Route {
            gives: (201, None),
            ..route
        }
    }

    pub(crate) fn put<H, T>(
        path: impl Into<String>,
        needs: Needs,
        summary: &'static str,
        handler: H,
    ) -> Route
    where
        H: Handler<T, App>,
        T: 'static,
    {
        Route::new(
            MethodFilter::PUT,
            Method::PUT,
            path,
            needs,
            summary,
            handler,
        )
    }

    pub(crate) fn patch<H, T>(
        path: impl Into<String>,
        needs: Needs,
        summary: &'static str,
        handler: H,
    ) -> Route
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let (filter, method) = (MethodFilter::PATCH, Method::PATCH);
        Route::new(filter, method, path, needs, summary, handler)
    }

    /// Removes something: 204.
    pub(crate) fn delete<H, T>(
        path: impl Into<String>,
        needs: Needs,
        summary: &'static str,
        handler: H,
    ) -> Route
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let (filter, method) = (MethodFilter::DELETE, Method::DELETE);
        let route = Route::new(filter, method, path, needs, summary, handler);
        Route {
            gives: (204, None),
            ..route
        }
    }

    pub(crate) fn query(self, query: &'static [&'static str]) -> Route {
        Route { query, ..self }
    }

    pub(crate) fn takes(self, schema: impl Into<String>) -> Route {
        Route {
            takes: Some(schema.into()),
            ..self
        }
    }

    pub(crate) fn gives(self, status: u16, schema: impl Into<String>) -> Route {
        Route {
            gives: (status, Some(schema.into())),
            ..self
        }
    }

    /// As [`Route::gives`], of an answer without a body.
    pub(crate) fn gives_nothing(self, status: u16) -> Route {
        Route {
            gives: (status, None),
            ..self
        }
    }

    /// Puts the route on a router, behind the check of what it needs.
    fn serve(self, app: &App, router: Router<App>) -> Router<App> {
        let Some(handler) = self.handler else {
            return router;
        };
        let check = from_fn_with_state((app.clone(), self.needs), authorize);
        router.route(&self.path, handler.route_layer(check))
    }
}

/// A router over `routes`.
pub(crate) fn serve(routes: Vec<Route>, app: &App) -> Router<App> {
    let routes = routes.into_iter();
    routes.fold(Router::new(), |router, route| route.serve(app, router))
}
