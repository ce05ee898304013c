# mailertable: where mail goes. These domains are local: they go to the delivery agent
# by LMTP. Every other domain goes to its MX.
localhost      lmtp:
example.test   lmtp:
