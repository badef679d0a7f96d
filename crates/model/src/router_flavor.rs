//! How a gateway reads its routes (`router_flavor` of kong.conf).

/// How a gateway reads its routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RouterFlavor {
    /// Traditional fields, ordered by one 64-bit priority: the default.
    #[default]
    TraditionalCompatible,
    /// Traditional fields, ordered by category, weight and age; knows `path_handling` v1.
    Traditional,
    /// Expressions, and traditional fields below them.
    Expressions,
}

impl RouterFlavor {
    /// All of them, the default first.
    pub const ALL: [RouterFlavor; 3] = [
        RouterFlavor::TraditionalCompatible,
        RouterFlavor::Traditional,
        RouterFlavor::Expressions,
    ];

    /// The word of the property.
    pub fn as_str(self) -> &'static str {
        match self {
            RouterFlavor::TraditionalCompatible => "traditional_compatible",
            RouterFlavor::Traditional => "traditional",
            RouterFlavor::Expressions => "expressions",
        }
    }
}
