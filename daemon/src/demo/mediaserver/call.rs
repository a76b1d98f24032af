//! What happens in a call? The scripts of the numbers: echo, ring, call back, and one user calling another.

use std::{future::pending, rc::Rc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    Mediaserver,
    agent::{Invitation, Repeat, Request, tag},
    dialog::Dialog,
    media::{Media, MediaEvent},
    sip::Message,
};

/// How long a telephone rings until we give up.
const RING: Duration = Duration::from_secs(30);
/// How long a caller of the callback number is kept until we hang up.
const CALLBACK_TALK: Duration = Duration::from_secs(2);
/// How long after that it rings.
const CALLBACK_PAUSE: Duration = Duration::from_secs(1);
/// RFC 5626 section 11.5: the edge has lost the browser.
const FLOW_FAILED: u16 = 430;
/// An answer to a request within a call must come within this.
const RENEGOTIATION: Duration = Duration::from_secs(10);

impl Mediaserver {
    /// Answers and sends back what it hears, until somebody hangs up or the time is over.
    pub(super) async fn echo(self: Rc<Self>, request: Request, caller: String, limit: Option<Duration>) {
        let _busy = self.directory.busy(&caller);
        let Some(dialog) = Dialog::accepting(&self.agent, &request.message) else {
            self.agent.respond(&request, &request.message.response(400, &tag()));
            return;
        };
        dialog.respond(&request, 180);
        let Ok(mut media) = Media::open(self.agent.local().ip(), &self.media_ports).await else {
            return dialog.respond(&request, 503);
        };
        let answer = match media.answer(&request.message.body) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "offer not understood");
                return dialog.respond(&request, 488);
            }
        };
        let ok = self
            .agent
            .accept(&request, &dialog.response(&request, 200).with_sdp(answer));
        tracing::info!(%caller, "echo: answered");
        self.talk(dialog, media, Some(ok), limit).await;
    }

    /// Rings until the caller gives up, or we do.
    pub(super) async fn ring(self: Rc<Self>, mut request: Request, caller: String) {
        let _busy = self.directory.busy(&caller);
        let tag = tag();
        self.agent.respond(&request, &request.message.response(180, &tag));
        let status = tokio::select! {
            () = request.cancelled() => 487,
            () = sleep(RING) => 480,
        };
        self.agent.respond(&request, &request.message.response(status, &tag));
    }

    /// Answers shortly, hangs up, and calls the caller back.
    pub(super) async fn call_back(self: Rc<Self>, request: Request, caller: String) {
        Rc::clone(&self)
            .echo(request, caller.clone(), Some(CALLBACK_TALK))
            .await;
        sleep(CALLBACK_PAUSE).await;
        self.call(caller).await;
    }

    /// Calls a registered user and is an echo.
    async fn call(self: Rc<Self>, user: String) {
        let Some(binding) = self.binding(&user) else {
            return;
        };
        let _busy = self.directory.busy(&user);
        let Ok(mut media) = Media::open(self.agent.local().ip(), &self.media_ports).await else {
            return;
        };
        let Ok(offer) = media.offer() else {
            return;
        };
        let (from, to) = (self.address_of("601"), self.address_of(&user));
        let (mut dialog, invite) = Dialog::calling(&self.agent, &from, &to, &binding.contact, &binding.path);
        let Some(mut invitation) = self.agent.invite(invite.with_sdp(offer)) else {
            return;
        };
        tracing::info!(%user, "callback: ringing");
        let answered = match timeout(RING, final_response(&mut invitation)).await {
            Ok(response) => response,
            Err(_) => invitation.cancel().await,
        };
        let status = answered.as_ref().map_or(408, Message::status);
        if status == FLOW_FAILED {
            self.unreachable(&user, &binding);
        }
        let Some(ok) = answered.filter(|_| status < 300) else {
            tracing::info!(%user, status, "callback: not answered");
            return;
        };
        if dialog.confirm(&ok).is_none() {
            return;
        }
        dialog.acknowledge(&invitation, &ok);
        if media.answered(&ok.body).is_err() {
            return dialog.bye().await;
        }
        tracing::info!(%user, "callback: answered");
        self.talk(dialog, media, None, None).await;
    }

    /// Connects two users: two dialogs, one session description that goes through untouched. Their media goes from
    /// relay to relay.
    pub(super) async fn connect(self: Rc<Self>, mut request: Request, caller: String, callee: String) {
        let Some(binding) = self.binding(&callee) else {
            self.agent.respond(&request, &request.message.response(480, &tag()));
            return;
        };
        let _busy = (self.directory.busy(&caller), self.directory.busy(&callee));
        let Some(near) = Dialog::accepting(&self.agent, &request.message) else {
            self.agent.respond(&request, &request.message.response(400, &tag()));
            return;
        };
        let (from, to) = (self.address_of(&caller), self.address_of(&callee));
        let (mut far, invite) = Dialog::calling(&self.agent, &from, &to, &binding.contact, &binding.path);
        let Some(mut invitation) = self.agent.invite(invite.with_sdp(request.message.body.clone())) else {
            return near.respond(&request, 480);
        };
        let ring = sleep(RING);
        tokio::pin!(ring);
        let answered = loop {
            tokio::select! {
                response = invitation.response() => match response {
                    Some(response) if response.status() == 100 => {}
                    Some(response) if response.status() < 200 => near.respond(&request, response.status()),
                    Some(response) => break Ok(response),
                    None => return near.respond(&request, 408),
                },
                () = request.cancelled() => break Err(487),
                () = &mut ring => break Err(480),
            }
        };
        let ok = match answered {
            Ok(response) if response.status() == FLOW_FAILED => {
                self.unreachable(&callee, &binding);
                return near.respond(&request, 480);
            }
            Ok(response) if response.status() >= 300 => return near.respond(&request, response.status()),
            Ok(response) => response,
            Err(status) => {
                near.respond(&request, status);
                // An answer that is faster than our CANCEL makes a call, which is ended.
                if let Some(ok) = invitation.cancel().await.filter(|response| response.status() < 300)
                    && far.confirm(&ok).is_some()
                {
                    far.acknowledge(&invitation, &ok);
                    far.bye().await;
                }
                return;
            }
        };
        if far.confirm(&ok).is_none() {
            return near.respond(&request, 500);
        }
        far.acknowledge(&invitation, &ok);
        let repeat = self
            .agent
            .accept(&request, &near.response(&request, 200).with_sdp(ok.body));
        tracing::info!(%caller, %callee, "call: answered");
        self.carry(near, far, repeat).await;
    }

    /// Keeps a call with the echo up until it ends, and ends it.
    async fn talk(&self, mut dialog: Dialog, mut media: Media, mut repeat: Option<Repeat>, limit: Option<Duration>) {
        let limit = async {
            match limit {
                Some(limit) => sleep(limit).await,
                None => pending().await,
            }
        };
        tokio::pin!(limit);
        loop {
            tokio::select! {
                request = dialog.request() => match request.message.method() {
                    "ACK" => repeat = None,
                    "BYE" => {
                        dialog.respond(&request, 200);
                        tracing::info!(packets = media.packets, "call: ended by the other side");
                        return;
                    }
                    "INVITE" => match media.answer(&request.message.body) {
                        Ok(answer) => {
                            let ok = dialog.response(&request, 200).with_sdp(answer);
                            repeat = Some(self.agent.accept(&request, &ok));
                        }
                        Err(_) => dialog.respond(&request, 488),
                    },
                    "INFO" | "OPTIONS" => dialog.respond(&request, 200),
                    _ => dialog.respond(&request, 501),
                },
                event = media.event() => match event {
                    MediaEvent::Connected => tracing::info!("call: media is up"),
                    MediaEvent::Closed => break,
                },
                () = gave_up(&mut repeat) => break,
                () = &mut limit => break,
            }
        }
        tracing::info!(packets = media.packets, "call: ended by us");
        dialog.bye().await;
    }

    /// Carries requests from one dialog to the other until one of them ends.
    async fn carry(&self, mut near: Dialog, mut far: Dialog, repeat: Repeat) {
        let mut repeats = [Some(repeat), None];
        loop {
            let (request, from, to, index) = {
                let [near_repeat, far_repeat] = &mut repeats;
                tokio::select! {
                    request = near.request() => (Some(request), &near, &mut far, 0),
                    request = far.request() => (Some(request), &far, &mut near, 1),
                    () = gave_up(near_repeat) => (None, &near, &mut far, 0),
                    () = gave_up(far_repeat) => (None, &far, &mut near, 1),
                }
            };
            let Some(request) = request else {
                tokio::join!(near.bye(), far.bye());
                return;
            };
            match request.message.method() {
                "ACK" => repeats[index] = None,
                "BYE" => {
                    from.respond(&request, 200);
                    tracing::info!("call: ended");
                    return if index == 0 { far.bye().await } else { near.bye().await };
                }
                "INVITE" => {
                    let answered = timeout(RENEGOTIATION, self.renegotiate(to, &request.message.body)).await;
                    match answered.ok().flatten() {
                        Some(ok) if ok.status() < 300 => {
                            let ok = from.response(&request, 200).with_sdp(ok.body);
                            repeats[index] = Some(self.agent.accept(&request, &ok));
                        }
                        refused => from.respond(&request, refused.map_or(408, |refused| refused.status())),
                    }
                }
                "INFO" | "OPTIONS" => from.respond(&request, 200),
                _ => from.respond(&request, 501),
            }
        }
    }

    /// Passes an offer on within a call.
    async fn renegotiate(&self, dialog: &mut Dialog, offer: &str) -> Option<Message> {
        let invite = dialog.invite().with_sdp(offer.into());
        let mut invitation = self.agent.invite(invite)?;
        let response = final_response(&mut invitation).await?;
        if response.status() < 300 {
            dialog.acknowledge(&invitation, &response);
        }
        Some(response)
    }
}

async fn final_response(invitation: &mut Invitation) -> Option<Message> {
    loop {
        let response = invitation.response().await?;
        if response.status() >= 200 {
            return Some(response);
        }
    }
}

async fn gave_up(repeat: &mut Option<Repeat>) {
    match repeat {
        Some(repeat) => repeat.gave_up().await,
        None => pending().await,
    }
}
