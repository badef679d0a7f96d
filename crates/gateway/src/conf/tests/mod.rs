mod dns;
mod grammar;
mod load;
mod material;

use super::*;

const PLUGINS: &[&str] = &["key-auth", "rate-limiting"];

fn load(file: &str, environment: &[(&str, &str)]) -> Result<(Conf, Vec<Warning>), ConfError> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Conf::load(Some(file), environment, PLUGINS)
}
