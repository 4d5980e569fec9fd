const express = require("express");
const _ = require("lodash");

const app = express();
app.get("/", (request, response) => {
  response.json({ greeting: _.capitalize("hello"), environment: process.env.NODE_ENV, version: process.env.npm_package_version });
});
const server = app.listen(process.env.PORT);
process.on("SIGTERM", () => {
  console.log("stopping");
  server.close(() => process.exit(0));
});
