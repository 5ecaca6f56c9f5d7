"""What programs show: tables on a terminal, pictures, files of figures. No library room imports this one."""
