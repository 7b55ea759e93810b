//! What a directory holds when an exec is over: looked up on a lane, once nothing of the exec runs any more, and told with its exit.

use std::rc::Rc;

use crate::files;
use crate::lane::{Lanes, Reply};
use crate::protocol::Listed;

type Found = Option<Vec<Listed>>;

pub enum Listing {
    Wanted(Vec<u8>, Rc<Lanes>),
    Asked(Reply<Found>),
    /// Nothing also where nobody wants it.
    Known(Found),
}

impl Listing {
    pub fn of(path: Option<&[u8]>, lanes: &Rc<Lanes>) -> Self {
        path.map_or(Self::Known(None), |path| Self::Wanted(path.to_vec(), lanes.clone()))
    }

    /// Whether the exit has to wait for it. Looks it up when this is first asked.
    pub fn is_awaited(&mut self) -> bool {
        if let Self::Wanted(path, lanes) = self {
            let path = std::mem::take(path);
            // Where all lanes are taken the host asks for itself.
            *self = lanes.ask(move || files::list_few(&path)).map_or(Self::Known(None), Self::Asked);
        }
        if let Self::Asked(reply) = self {
            if let Some(found) = reply.take() {
                *self = Self::Known(found);
            }
        }
        !self.is_known()
    }

    pub fn is_known(&self) -> bool {
        matches!(self, Self::Known(_))
    }

    /// Wait no longer.
    pub fn give_up(&mut self) {
        if !self.is_known() {
            *self = Self::Known(None);
        }
    }

    pub fn take(&mut self) -> Found {
        match self {
            Self::Known(found) => found.take(),
            _ => None,
        }
    }
}
