//! Reading roll-ups: sums by any of the dimensions, over a time, in intervals.

use std::collections::HashMap;

use rusqlite::Connection;
use sallyport_wire::telemetry::{Dimensions, StatusClass, Totals};
use uuid::Uuid;

use super::Failure;
use super::database::{self, Grain};

/// Rows that one query reads.
const ROWS_MAX: usize = 5_000_000;
/// Groups that one query holds.
const GROUPS_MAX: usize = 100_000;

/// By what sums may be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    ControlPlane,
    Service,
    Route,
    Consumer,
    StatusClass,
    Upstream,
    Node,
}

impl By {
    pub(super) const ALL: [By; 7] = [
        By::ControlPlane,
        By::Service,
        By::Route,
        By::Consumer,
        By::StatusClass,
        By::Upstream,
        By::Node,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            By::ControlPlane => "control_plane",
            By::Service => "service",
            By::Route => "route",
            By::Consumer => "consumer",
            By::StatusClass => "status_class",
            By::Upstream => "upstream",
            By::Node => "node",
        }
    }

    pub(super) fn parse(text: &str) -> Option<By> {
        By::ALL.into_iter().find(|by| by.as_str() == text)
    }
}

/// What a dimension must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Id(Uuid),
    Class(StatusClass),
    Text(String),
    /// It has none.
    None,
    /// The rest for which there was no room.
    Overflow,
}

/// Which sums, and how they are told apart.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) grain: Grain,
    /// Unix seconds, of whole minutes or hours.
    pub(super) from: i64,
    /// The first second after.
    pub(super) to: i64,
    /// Seconds of one step, a multiple of the grain; `None` for all in one.
    pub(super) interval: Option<i64>,
    pub(super) by: Vec<By>,
    /// One of the values of each.
    pub(super) only: Vec<(By, Vec<Value>)>,
    pub(super) groups_max: usize,
}

/// What sums are told apart by; what is not asked for is the same for all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Group {
    /// Unix second at which the interval begins.
    pub(super) at: i64,
    pub(super) control_plane: Uuid,
    pub(super) of: Dimensions,
    /// `None` where nodes are not told apart any more.
    pub(super) node: Option<Uuid>,
}

/// Sums of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) totals: Totals,
    /// Answered with 4xx.
    pub(super) client_errors: u64,
    /// Answered with 5xx.
    pub(super) server_errors: u64,
}

impl Sums {
    fn add(&mut self, class: StatusClass, totals: &Totals) {
        self.totals.merge(totals);
        match class.hundreds() {
            4 => self.client_errors += totals.requests(),
            5 => self.server_errors += totals.requests(),
            _ => {}
        }
    }
}

/// The answer to a query.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In order of time, then of requests, most first.
    pub(super) groups: Vec<(Group, Sums)>,
    /// Over all groups, also those that are left out.
    pub(super) all: Sums,
    /// Groups that are left out.
    pub(super) left_out: usize,
}

/// Runs a query.
pub(super) fn run(conn: &Connection, query: &Query) -> Result<Found, Failure> {
    // the series that are asked for, and as what each counts
    let mut wanted: HashMap<i64, (Uuid, Dimensions, StatusClass)> = HashMap::new();
    for (id, control_plane, of) in database::all_series(conn)? {
        if query
            .only
            .iter()
            .all(|(by, values)| fits(*by, values, control_plane, &of))
        {
            let class = of.class;
            let control_plane = match query.by.contains(&By::ControlPlane) {
                true => control_plane,
                false => Uuid::nil(),
            };
            wanted.insert(id, (control_plane, reduced(&of, &query.by), class));
        }
    }
    let nodes: HashMap<i64, Uuid> = database::nodes(conn)?.into_iter().collect();
    let of_node = query.only.iter().find(|(by, _)| *by == By::Node);
    let by_node = query.by.contains(&By::Node);
    let mut groups: HashMap<Group, Sums> = HashMap::new();
    let mut all = Sums::default();
    let mut rows = 0_usize;
    let seconds = query.grain.seconds();
    let range = (query.from / seconds, query.to / seconds);
    database::rows(conn, query.grain, range, |place, totals| {
        rows += 1;
        if rows > ROWS_MAX {
            return Err(Failure::TooMuch(format!("more than {ROWS_MAX} rows")));
        }
        let Some((control_plane, of, class)) = wanted.get(&place.series) else {
            return Ok(());
        };
        let node = nodes.get(&place.node).copied();
        if let Some((_, values)) = of_node
            && !values.contains(&node.map_or(Value::None, Value::Id))
        {
            return Ok(());
        }
        let at = query.interval.map_or(query.from, |interval| {
            let at = place.at * seconds;
            at - at.rem_euclid(interval)
        });
        let group = Group {
            at,
            control_plane: *control_plane,
            of: of.clone(),
            node: node.filter(|_| by_node),
        };
        let totals = totals()?;
        all.add(*class, &totals);
        if groups.len() >= GROUPS_MAX && !groups.contains_key(&group) {
            return Err(Failure::TooMuch(format!("more than {GROUPS_MAX} groups")));
        }
        groups.entry(group).or_default().add(*class, &totals);
        Ok(())
    })?;
    let mut groups: Vec<(Group, Sums)> = groups.into_iter().collect();
    let most = |sums: &Sums| std::cmp::Reverse(sums.totals.requests());
    let left_out = groups.len().saturating_sub(query.groups_max);
    if left_out > 0 {
        groups.sort_unstable_by(|a, b| most(&a.1).cmp(&most(&b.1)).then_with(|| a.0.cmp(&b.0)));
        groups.truncate(query.groups_max);
    }
    groups.sort_unstable_by(|a, b| {
        let times = a.0.at.cmp(&b.0.at);
        times
            .then_with(|| most(&a.1).cmp(&most(&b.1)))
            .then_with(|| a.0.cmp(&b.0))
    });
    Ok(Found {
        groups,
        all,
        left_out,
    })
}

/// Only what is told apart.
fn reduced(of: &Dimensions, by: &[By]) -> Dimensions {
    let has = |which| by.contains(&which);
    let entities = [By::Service, By::Route, By::Consumer, By::Upstream];
    Dimensions {
        service: of.service.filter(|_| has(By::Service)),
        route: of.route.filter(|_| has(By::Route)),
        consumer: of.consumer.filter(|_| has(By::Consumer)),
        class: match has(By::StatusClass) {
            true => of.class,
            false => StatusClass::of(200),
        },
        upstream: of.upstream.clone().filter(|_| has(By::Upstream)),
        overflow: of.overflow && entities.into_iter().any(has),
    }
}

fn fits(by: By, values: &[Value], control_plane: Uuid, of: &Dimensions) -> bool {
    let id = |id: Option<Uuid>| match (of.overflow, id) {
        (true, _) => Value::Overflow,
        (false, Some(id)) => Value::Id(id),
        (false, None) => Value::None,
    };
    let value = match by {
        By::ControlPlane => Value::Id(control_plane),
        By::Service => id(of.service),
        By::Route => id(of.route),
        By::Consumer => id(of.consumer),
        By::StatusClass => Value::Class(of.class),
        By::Upstream => match (of.overflow, &of.upstream) {
            (true, _) => Value::Overflow,
            (false, Some(name)) => Value::Text(name.to_string()),
            (false, None) => Value::None,
        },
        // a matter of rows, not of series
        By::Node => return true,
    };
    values.contains(&value)
}

/// The grain that serves a query: minutes where all of it is kept by minute and the interval, if any,
/// is not of whole hours.
pub(super) fn grain(oldest_minute: i64, from: i64, to: i64, interval: Option<i64>) -> Grain {
    let by_hours = interval.is_some_and(|interval| interval % 3_600 == 0);
    let long = interval.is_none() && to - from > 86_400;
    match from < oldest_minute || by_hours || long {
        true => Grain::Hour,
        false => Grain::Minute,
    }
}
