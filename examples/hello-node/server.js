'use strict';

const express = require('express');

const app = express();
app.disable('x-powered-by');
const greeting = process.env.GREETING ?? 'Hello from Node';

app.get('/', (request, response) => {
  console.log(`greeting ${request.get('x-request-id') ?? 'somebody'}`);
  response.type('text/plain').send(`${greeting}\n`);
});

const server = app.listen(Number(process.env.PORT), (error) => {
  if (error) throw error;
  console.log(`listening on ${server.address().port}`);
});

// No new connections; requests in flight are answered; then nothing is left to run.
process.once('SIGTERM', () => {
  console.log('stopping');
  server.close();
});
