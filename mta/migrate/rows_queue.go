package migrate

func queueRows() []Row {
	return []Row{
		to("maximal_queue_lifetime", "qmgr queue_return default"),
		to("bounce_queue_lifetime", "qmgr queue_return default", "Bounces wait as long as other mail."),
		to("minimal_backoff_time", "qmgr retry_delay_min"),
		to("maximal_backoff_time", "qmgr retry_delay_max"),
		to("delay_warning_time", "qmgr queue_delay default"),
		to("qmgr_message_active_limit", "qmgr AQ_entries_max", "It counts recipients, not messages."),
		to("queue_minfree", "qmgr disk_space_min"),
		to("bounce_size_limit", "qmgr DSN_handling", "Bounces have the whole message, or with the flag header_only its header."),
		to("double_bounce_sender 2bounce_notice_recipient", "qmgr double_bounce_address", "A bounce that cannot be delivered goes there."),
		to("default_verp_delimiters", "qmgr VERP delimiter1, delimiter2"),
		missing("bounce_template_file", "The text of bounces is fixed."),
		missing("notify_classes", "Nobody is mailed about problems: contrib has alert rules for the metrics (docs/metrics.md).", "resource, software"),
		missing("error_notice_recipient bounce_notice_recipient delay_notice_recipient", "Nobody gets copies of bounces.", "postmaster"),
		missing("confirm_delay_cleared", "There is no notice that a delay is over.", "no"),
		missing("default_delivery_status_filter *_delivery_status_filter", "Replies of hosts count as they are.", "$default_delivery_status_filter"),
		missing("disable_verp_bounces verp_delimiter_filter", "VERP is for bounces, too.", "no", "-=+"),
		missing("enable_threaded_bounces header_from_format", "Bounces have the form of RFC 3464.", "no", "standard"),
		missing("multi_recipient_bounce_reject_code backwards_bounce_logfile_compatibility", "Bounces to several recipients can be refused by a section check (docs/checks.md).", "550", "yes"),
		missing("default_recipient_limit default_extra_recipient_limit default_recipient_refill_* *_recipient_limit *_extra_recipient_limit *_recipient_refill_* qmgr_message_recipient_*", "The queue is bounded by AQ_entries_max.", "20000", "1000", "100", "5s", "10", "$default_recipient_limit", "$default_extra_recipient_limit", "$default_recipient_refill_delay", "$default_recipient_refill_limit"),
		needless("queue_run_delay transport_retry_time", "Each message is tried when it is due."),
		needless("*_destination_concurrency_failed_cohort_limit *_destination_concurrency_negative_feedback *_destination_concurrency_positive_feedback destination_concurrency_feedback_debug *_delivery_slot_* *_minimum_delivery_slots qmgr_fudge_factor qmgr_clog_warn_time qmgr_daemon_timeout qmgr_ipc_timeout in_flow_delay", "The scheduler is another one: slow start for each host, fair between senders and destinations."),
		needless("hash_queue_* enable_long_queue_ids queue_file_attribute_count_limit lmdb_map_size berkeley_db_*", "The queue is a store of its own."),
	}
}

func filterRows() []Row {
	content := "Headers and bodies are not looked at. Have a milter do it (rspamd, mailfromd), or a section check for what it can see (docs/checks.md)."
	return []Row{
		to("smtpd_milters", "smtps milter"),
		to("milter_default_action", "smtps milter flags"),
		to("milter_command_timeout", "smtps milter timeout"),
		to("milter_connect_timeout", "smtps milter connect_timeout"),
		to("milter_content_timeout", "smtps milter content_timeout"),
		to("milter_protocol", "smtps milter protocol"),
		missing("non_smtpd_milters", "meta1 sendmail hands mail over by SMTP, so that the milters of that server see it: if the two lists differ, give local mail a server of its own."),
		missing("smtpd_milter_maps", "A milter is asked for all clients of a server; give the clients that are exempt a server of their own."),
		missing("milter_header_checks", content),
		missing("header_checks body_checks mime_header_checks nested_header_checks", content),
		missing("content_filter receive_override_options", "There is no filter behind the queue: use the milter of the same program (amavisd-milter, clamav-milter, rspamd), or route all mail to the filter (mailertable: .) and take it back by a second section smtps."),
		missing("milter_*_macros", "macros_connect and so on of section milter name macros for milters that do not ask themselves.", "j {daemon_name} {daemon_addr} v _", "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}"),
		missing("milter_macro_*", "The macros that milters get are those of docs/milters.md.", "$myhostname", "$mail_name $mail_version"),
		needless("internal_mail_filter_classes body_checks_size_limit mime_boundary_length_limit mime_nesting_limit disable_mime_input_processing disable_mime_output_conversion cleanup_replace_stray_cr_lf default_filter_nexthop", "It belongs to the inspection of content, which meta1 leaves to milters."),
	}
}

func processRows() []Row {
	return []Row{
		to("maillog_file", "log_file"),
		to("syslog_facility", "log facility", "meta1 logs to standard error, which is the journal under systemd; section log has it log by syslog(3)."),
		needless("syslog_name maillog_file_* info_log_address_format delay_logging_resolution_limit respectful_logging helpful_warnings postlog* debug_* debugger_command", "The log has names of its own (docs/logs.md)."),
		needless("queue_directory data_directory daemon_directory command_directory shlib_directory meta_directory config_directory alternate_config_directories manpage_directory html_directory readme_directory sample_directory sendmail_path mailq_path process_*", "It says where Postfix has its own files; meta1 has working_directory."),
		needless("mail_owner setgid_group", "The account is meta1 (options user and group)."),
		needless("multi_instance_* postmulti_*", "Each configuration file is a server of its own."),
		needless("*_service_name service_name master_service_disable service_throttle_time stress", "It is about Postfix's processes."),
		needless("anvil_status_update_time application_event_drain_time daemon_* default_database_type dns_ncache_ttl_fix_enable dnssec_probe dont_remove enable_idna2003_compatibility fault_injection_code fork_* import_environment ipc_* known_tcp_ports max_idle max_use proxy_read_maps proxy_write_maps proxymap_service_name sendmail_fix_line_endings tcp_windowsize trigger_timeout", "It is about the inside of Postfix."),
	}
}
