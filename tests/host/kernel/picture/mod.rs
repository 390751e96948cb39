//! Memory as a picture: amounts that are exact, lines that fit a terminal, and no control byte where there are no colours.

mod canvas;
mod overlay;
mod parts;
