//! What is behind the edge in the demonstration? A LAN in a box: a web server with a page, and a mediaserver.

mod directory;
mod mediaserver;
