//! Query parameters: decoded once, each at most once.

use std::str::FromStr;

use crate::{
    app::Error,
    http::message::fields,
    model::name::{Folder, UserId},
};

/// The parameters of a request. Unknown ones are ignored.
pub struct Query(Vec<Parameter>);

struct Parameter {
    name: String,
    value: String,
    /// The value with each `+` left as it stands, if it has one.
    literal: Option<String>,
}

/// Most parameters of one request.
const PARAMETERS_MAX: usize = 32;

impl Query {
    /// # Errors
    /// [`Error::Invalid`] for text that is not percent-encoded UTF-8, for more than 32 parameters,
    /// and for a parameter that comes twice: nobody can say which one counts.
    pub fn parse(query: Option<&str>) -> Result<Self, Error> {
        let mut parameters: Vec<Parameter> = Vec::new();
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let literal = value.contains('+').then(|| decode(&value.replace('+', "%2B")));
            let (name, value) = (decode(name)?, decode(value)?);
            if parameters.len() == PARAMETERS_MAX {
                let detail = "The query has more than 32 parameters.";
                return Err(Error::invalid("invalid_query", detail));
            }
            if parameters.iter().any(|known| known.name == name) {
                let detail = format!("The parameter {name} is given twice.");
                return Err(Error::invalid("duplicate_parameter", detail));
            }
            parameters.push(Parameter { name, value, literal: literal.transpose()? });
        }
        Ok(Self(parameters))
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.0.iter().find(|known| known.name == name)
    }

    /// The value of a parameter. An empty one counts as absent: clients send a parameter for every
    /// variable that they have.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.exact(name).filter(|value| !value.is_empty())
    }

    /// The value of a parameter, even an empty one, for parameters where an empty value must not
    /// count as absent.
    pub fn exact(&self, name: &str) -> Option<&str> {
        self.parameter(name).map(|parameter| parameter.value.as_str())
    }

    /// The user whom the query names: `user_id`, else `user_email`. One of them may be empty, but
    /// not all that are present: a service that names nobody is given everything, and a client
    /// whose variable is empty does not mean that.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what cannot be a user id.
    pub fn user(&self) -> Result<Option<UserId>, Error> {
        let said = ["user_id", "user_email"].map(|name| self.exact(name));
        let mut named = said.into_iter().flatten();
        let user = named.clone().find(|user| !user.is_empty()).or_else(|| named.next());
        user.map(fields::user_id).transpose()
    }

    /// The value with each `+` as a plus sign, which is what a client means that pasted the value
    /// unencoded; `None` if the value has no `+`.
    pub fn literal(&self, name: &str) -> Option<&str> {
        self.parameter(name)?.literal.as_deref()
    }

    /// The value of a parameter that must be present. It may be empty: what parses the value
    /// refuses that.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the parameter when it is absent.
    pub fn required(&self, name: &'static str) -> Result<&str, Error> {
        self.exact(name).ok_or_else(|| {
            Error::invalid("missing_parameter", format!("The parameter {name} is required."))
        })
    }

    /// The value of a parameter as a number.
    ///
    /// # Errors
    /// [`Error::Invalid`] with `code` for anything but digits that fit `T`.
    pub fn number<T: FromStr>(
        &self,
        name: &'static str,
        code: &'static str,
    ) -> Result<Option<T>, Error> {
        self.text(name).map(|text| fields::number(text, name, code)).transpose()
    }

    /// `limit`: how many entries of a list are wanted.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0, and for what is not a number.
    pub fn limit(&self) -> Result<Option<u64>, Error> {
        let limit = self.number("limit", "invalid_limit")?;
        if limit == Some(0) {
            return Err(Error::invalid("invalid_limit", "limit must be at least 1."));
        }
        Ok(limit)
    }

    /// `cursor`: where a page of a list begins, as the page before it said.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what cannot be parsed.
    pub fn cursor<T>(&self, parse: fn(&str) -> Option<T>) -> Result<Option<T>, Error> {
        let detail = "The cursor must be the next_cursor of the previous page.";
        let wrong = || Error::invalid("invalid_cursor", detail);
        self.text("cursor").map(|text| parse(text).ok_or_else(wrong)).transpose()
    }

    /// `folder`; the top folder if it is absent.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what cannot be a folder.
    pub fn folder(&self) -> Result<Folder, Error> {
        fields::folder(self.text("folder").unwrap_or_default())
    }
}

/// Decodes `application/x-www-form-urlencoded` strictly: malformed text is refused, not replaced,
/// so that two names that differ stay different.
fn decode(text: &str) -> Result<String, Error> {
    let decoded = fields::percent_decoded(&text.replace('+', " "));
    let detail = "The query is not percent-encoded UTF-8.";
    decoded.ok_or_else(|| Error::invalid("invalid_query", detail))
}
